/**
 * Who answers: the epoch of a broker. docs/protocol-reliable.md "Lost answers".
 *
 *     <iq type='get'><alive xmlns='xmq:queue:1'/></iq>  ->  <alive xmlns='xmq:queue:1' epoch='LIFE.STREAM'/>
 *
 * The same attribute stands on `<published/>`, `<settled/>`, `<renewed/>` and `<resubscribe/>`.
 */
import { element, type XmlElement } from '../element.ts'
import { NS_QUEUE } from '../namespaces.ts'
import { assertQueueElement, assertText, optionalText } from './fields.ts'
import { EPOCH_BYTES_MAX } from './limits.ts'

/** Writes `<alive/>`. @param epoch of the answer; a question has none. @throws XmqError `bad-request` */
export function encodeAlive(epoch?: string): XmlElement {
  if (epoch !== undefined) assertText(epoch, 'epoch', 'alive', EPOCH_BYTES_MAX)
  return element('alive', NS_QUEUE, { epoch })
}

/** Reads `<alive/>`. @throws XmqError `bad-request` */
export function decodeAlive(alive: XmlElement): { readonly epoch?: string } {
  assertQueueElement(alive, 'alive')
  const epoch = optionalText(alive, 'epoch', EPOCH_BYTES_MAX)
  return epoch === undefined ? {} : { epoch }
}

/** The epoch that an answer or a call of the broker names; `undefined` when it names none that can be read. */
export function epochOf(stanza: XmlElement): string | undefined {
  for (const child of stanza.children) {
    if (typeof child === 'string' || child.ns !== NS_QUEUE) continue
    const epoch = child.attrs.get('epoch')
    if (epoch !== undefined) return epoch !== '' && epoch.length <= EPOCH_BYTES_MAX ? epoch : undefined
  }
  return undefined
}

/** Whether two epochs are of one life of a broker: its stream may be another one. */
export function isSameLife(a: string, b: string): boolean {
  return lifeOf(a) === lifeOf(b)
}

function lifeOf(epoch: string): string {
  const dot = epoch.lastIndexOf('.')
  return dot === -1 ? epoch : epoch.slice(0, dot)
}
