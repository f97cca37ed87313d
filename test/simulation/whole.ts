/** What a plain consumer gets is what the producer sent, and says who that is. docs/protocol.md "Messages". */
import { childElements, type XmlElement, writeElement } from '@xmq/protocol'
import { Violation } from './violation.ts'

/** What the queue writes, or takes out. */
const OWN: ReadonlySet<string> = new Set(['addresses', 'stanza-id', 'no-store', 'no-copy', 'private'])

/**
 * Compares a delivery with the message that it delivers.
 * @param original with its producer's full JID in `from`
 * @param sender whom the delivery has to come from
 */
export function checkWhole(original: XmlElement, delivery: XmlElement, sender: string): void {
  for (const name of ['type', 'id', 'xml:lang']) {
    if (original.attrs.get(name) !== delivery.attrs.get(name)) throw new Violation(`a delivery has another '${name}'`)
  }
  const from = delivery.attrs.get('from')
  if (from !== sender) throw new Violation(`a delivery comes from ${from}, expected ${sender}`)
  const producers = producersIn(delivery)
  if (producers.length !== 1 || producers[0] !== original.attrs.get('from'))
    throw new Violation(`a delivery names ${producers.join(', ') || 'nobody'} as its producer`)
  if (contentOf(original) !== contentOf(delivery)) throw new Violation('a delivery lost, gained or reordered children')
  for (const hint of ['no-store', 'no-copy', 'private']) {
    if (childElements(delivery).filter((child) => child.name === hint).length !== 1)
      throw new Violation(`a delivery lacks <${hint}/>`)
  }
  if (childElements(delivery).some((child) => child.name === 'stanza-id'))
    throw new Violation('a forged stanza-id was passed on')
}

/** Compares a plain message with the item that a reliable consumer gets of it: docs/protocol-reliable.md section 9. */
export function checkEnvelope(original: XmlElement, item: XmlElement): void {
  const envelope = childElements(item).find((child) => child.name === 'envelope')
  if (envelope === undefined) throw new Violation('a plain message is delivered without its envelope')
  for (const name of ['id', 'xml:lang']) {
    if (original.attrs.get(name) !== envelope.attrs.get(name)) throw new Violation(`an envelope has another '${name}'`)
  }
  const names = childElements(original)
    .filter(({ name }) => !OWN.has(name))
    .map(({ name }) => (name === 'xmq' ? 'topic' : name === 'body' ? 'payload' : name))
  if (names.at(-1) === 'topic') names.pop()
  const has = childElements(envelope).map(({ name }) => name)
  if (names.join(' ') !== has.join(' ')) throw new Violation(`an envelope has ${has.join(' ')}, not ${names.join(' ')}`)
}

/** Whom a delivery names as its producer. */
export function producersIn(delivery: XmlElement): readonly (string | undefined)[] {
  return childElements(delivery)
    .flatMap((child) => (child.name === 'addresses' ? childElements(child) : []))
    .filter((address) => address.attrs.get('type') === 'ofrom')
    .map((address) => address.attrs.get('jid'))
}

function contentOf(message: XmlElement): string {
  return childElements(message)
    .filter((child) => !OWN.has(child.name))
    .map((child) => writeElement(child))
    .join('')
}
