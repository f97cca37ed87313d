/**
 * The reading side of an xmpp.js connection, replaced: our reader in place of ltx's.
 *
 * ltx decodes each chunk alone (which corrupts characters split across chunks), overflows its stack on deep elements, takes
 * quadratic time on small chunks, and throws out of the socket's `data` event. Ours bounds depth, attributes and size, and
 * reports instead.
 */
import { parseElement, type XmlElement, XmlStreamReader, type XmqError } from '@xmq/protocol'
import { type XmppParser, type XmppTransportClass, xml } from '@xmpp/client-core'

/** RFC 7395. */
const NS_FRAMING = 'urn:ietf:params:xml:ns:xmpp-framing'

/** What is read, before xmpp.js sees any of it. */
export interface StreamHooks {
  onElement(root: XmlElement, parser: XmppParser): void
  onSkipped(head: XmlElement, error: XmqError): void
}

/** xmpp.js's class for parsers, made for TCP: one stream in any chunks. */
export function streamParserClass(base: XmppTransportClass, hooks: StreamHooks): new () => XmppParser {
  const Base = base.prototype.Parser
  return class StreamParser extends Base {
    readonly #reader = new XmlStreamReader({
      onOpen: (root) => report(this, 'start', xml(root.name, Object.fromEntries(root.attrs))),
      onElement: (root) => hooks.onElement(root, this),
      onSkipped: (head, error) => hooks.onSkipped(head, error),
      onClose: () => report(this, 'end', xml('stream:stream', {})),
    })

    override write(text: string): void {
      try {
        this.#reader.write(text)
      } catch (error) {
        report(this, 'error', error)
      }
    }

    override end(): void {}
  }
}

/** The same for WebSocket: one element a frame (RFC 7395 3.3). */
export function framedParserClass(base: XmppTransportClass, hooks: StreamHooks): new () => XmppParser {
  const Base = base.prototype.Parser
  return class FramedParser extends Base {
    override write(text: string): void {
      try {
        const root = parseElement(text, '')
        if (root.ns !== NS_FRAMING) hooks.onElement(root, this)
        else if (root.name === 'open') report(this, 'start', xml('open', Object.fromEntries(root.attrs)))
        else if (root.name === 'close') report(this, 'end', xml('close', { xmlns: NS_FRAMING }))
      } catch (error) {
        report(this, 'error', error)
      }
    }

    override end(): void {}
  }
}

/** Emits unless nobody listens any more: a parser outlives its stream when its chunk holds more than the end. */
function report(parser: XmppParser, event: string, value: unknown): void {
  if (parser.listenerCount(event) > 0) parser.emit(event, value)
}
