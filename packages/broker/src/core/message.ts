/**
 * A message on its way from the producer to a consumer. docs/protocol.md "Messages".
 *
 *     in   <message type='chat' id='1' from='shop@d/r' to='QUEUE'>           EVERY CHILD            </message>
 *     out  <message type='chat' id='1' from='QUEUE' to='worker@d/r'>         EVERY CHILD, in order
 *            <addresses xmlns='http://jabber.org/protocol/address'><address type='ofrom' jid='shop@d/r'/></addresses>
 *            <no-store xmlns='urn:xmpp:hints'/><no-copy xmlns='urn:xmpp:hints'/><private xmlns='urn:xmpp:carbons:2'/>
 *          </message>
 *
 * The queue vouches for `ofrom`, so whatever a producer wrote there itself is taken out: all `<address type='ofrom'/>`, and
 * all `<stanza-id/>`, since an id that some archive gave the message on its way to the queue names nothing on the way
 * from it (XEP-0359 2), whatever `by` says. `<origin-id/>`, the producer's own, stays. An `<addresses/>` that is there
 * keeps its other addresses and takes the new `ofrom` as its last.
 */
import {
  element,
  findChild,
  isElement,
  NS_ADDRESS,
  NS_CARBONS,
  NS_CLIENT,
  NS_HINTS,
  NS_STANZA_ID,
  withChildren,
  type XmlElement,
  type XmlNode,
} from '@xmq/protocol'

/** RFC 6121 5.2.2, without `error`. Any other value means `normal` there, which is what leaving it out means. */
const TYPES: ReadonlySet<string> = new Set(['normal', 'chat', 'headline', 'groupchat'])

const NO_STORE = element('no-store', NS_HINTS)
const NO_COPY = element('no-copy', NS_HINTS)
const PRIVATE = element('private', NS_CARBONS)

/** What all consumers get, whoever they are. */
export interface Delivery {
  readonly from: string
  readonly type: string | undefined
  readonly id: string | undefined
  readonly language: string | undefined
  readonly children: readonly XmlNode[]
}

/**
 * Prepares a message for delivery: everything but the addressee, once for all of them.
 *
 * @param message as the producer sent it
 * @param from the queue, or the producer where the queue says `preserveFrom`
 */
export function prepareDelivery(message: XmlElement, from: string): Delivery {
  const { attrs } = message
  const type = attrs.get('type')
  return {
    from,
    type: type !== undefined && TYPES.has(type) ? type : undefined,
    id: attrs.get('id'),
    language: attrs.get('xml:lang'),
    children: deliveredChildren(message, attrs.get('from') ?? ''),
  }
}

/** The stanza for one consumer; the children are shared between all of them. */
export function deliverTo(delivery: Delivery, consumer: string): XmlElement {
  const attrs = new Map<string, string>()
  if (delivery.type !== undefined) attrs.set('type', delivery.type)
  if (delivery.id !== undefined) attrs.set('id', delivery.id)
  if (delivery.language !== undefined) attrs.set('xml:lang', delivery.language)
  attrs.set('from', delivery.from)
  attrs.set('to', consumer)
  return { name: 'message', ns: NS_CLIENT, attrs, children: delivery.children }
}

/** A message without what its producer had no right to say, as it is stored. */
export function withoutForgeries(message: XmlElement): XmlElement {
  const children: XmlNode[] = []
  for (const child of message.children) {
    if (isElement(child, 'stanza-id', NS_STANZA_ID)) continue
    if (!isElement(child, 'addresses', NS_ADDRESS)) {
      children.push(child)
      continue
    }
    const others = child.children.filter((address) => !isForged(address))
    if (others.some((address) => typeof address !== 'string')) children.push(withChildren(child, others))
  }
  return withChildren(message, children)
}

function deliveredChildren(message: XmlElement, producer: string): XmlNode[] {
  const children: XmlNode[] = []
  let isAddressed = false
  for (const child of message.children) {
    if (isElement(child, 'stanza-id', NS_STANZA_ID)) continue
    if (isElement(child, 'addresses', NS_ADDRESS)) {
      const others = child.children.filter((address) => !isForged(address))
      if (!others.some((address) => typeof address !== 'string')) continue
      children.push(withChildren(child, isAddressed ? others : [...others, ofrom(producer)]))
      isAddressed = true
    } else children.push(child)
  }
  if (!isAddressed) children.push(element('addresses', NS_ADDRESS, undefined, [ofrom(producer)]))
  if (findChild(message, 'no-store', NS_HINTS) === undefined) children.push(NO_STORE)
  if (findChild(message, 'no-copy', NS_HINTS) === undefined) children.push(NO_COPY)
  if (findChild(message, 'private', NS_CARBONS) === undefined) children.push(PRIVATE)
  return children
}

/** XEP-0033 4.1.5: the original sender, which only the one who sends on may state. */
function ofrom(producer: string): XmlElement {
  return element('address', NS_ADDRESS, { type: 'ofrom', jid: producer })
}

function isForged(node: XmlNode): boolean {
  return typeof node !== 'string' && node.name === 'address' && node.attrs.get('type') === 'ofrom'
}
