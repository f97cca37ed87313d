/**
 * What a stanza says, whatever encoding it says it in: the oracles read packed items with a few lines of their own, since the
 * codec is among what they judge. docs/protocol-reliable.md "Packed items".
 */
import { childElements, element, parseElement, textOf, withAttrs, type XmlElement } from '@xmq/protocol'

const PUBLISH_FIELDS = ['id', 'topic', 'key', 'priority', 'delay', 'ttl'] as const
const DELIVER_FIELDS = ['lease', 'seq', 'id', 'topic', 'from', 'at', 'attempt', 'failures'] as const

/** Of a stanza that several look at. */
const spoken = new WeakMap<XmlElement, readonly XmlElement[]>()

/** The child elements of a stanza, what is packed in them as items. No name here has a backslash, a tab or a line end. */
export function spokenIn(stanza: XmlElement): readonly XmlElement[] {
  const known = spoken.get(stanza)
  if (known !== undefined) return known
  const said = childElements(stanza).map((child) => {
    if (child.name === 'settle') return spreadAcks(child)
    if (child.attrs.get('encoding') !== 'packed') return child
    if (child.name === 'publish') return unpacked(child, PUBLISH_FIELDS)
    if (child.name === 'deliver') return unpacked(child, DELIVER_FIELDS)
    return child.name === 'published' ? confirmsIn(child) : child
  })
  spoken.set(stanza, said)
  return said
}

function unpacked(container: XmlElement, names: readonly string[]): XmlElement {
  const items = textOf(container)
    .split('\n')
    .slice(0, -1)
    .map((line) => {
      const fields = line.split('\t')
      const attrs: Record<string, string> = {}
      for (const [at, name] of names.entries()) if (fields[at] !== '') attrs[name] = fields[at] as string
      if (attrs['at'] !== undefined) attrs['at'] = new Date(Number(attrs['at'])).toISOString()
      const content = (fields[names.length] ?? '') + (fields[names.length + 1] ?? '').slice(1)
      return withAttrs(parseElement(`<item xmlns='${container.ns}'>${content}</item>`), attrs)
    })
  return { name: container.name, ns: container.ns, attrs: container.attrs, children: items }
}

function spreadAcks(settle: XmlElement): XmlElement {
  const children = childElements(settle).flatMap((child) => {
    if (child.name !== 'acks') return [child]
    return textOf(child)
      .split('\n')
      .map((lease) => element('ack', child.ns, { lease }))
  })
  return { name: settle.name, ns: settle.ns, attrs: settle.attrs, children }
}

/** Without ids: each is that of the item in its place. */
function confirmsIn(published: XmlElement): XmlElement {
  const { name, ns, attrs } = published
  const items = textOf(published)
    .split(' ')
    .map((confirm) => {
      const [seq = '', subscriptions] = confirm.split('/')
      const duplicate = seq.endsWith('d') ? 'true' : undefined
      return element('item', ns, { seq: seq.replace('d', ''), duplicate, subscriptions })
    })
  return { name, ns, attrs, children: items }
}
