/** Between our elements and those of xmpp.js (ltx): the only place that knows both. */
import { type XmlElement } from '@xmq/protocol'
import { type LtxElement, xml } from '@xmpp/client-core'
import { hideSensitive } from '@xmpp/debug'

/** An element as xmpp.js has it. The namespace is declared wherever it differs from the parent's. */
export function toLtx(root: XmlElement, contextNs = ''): LtxElement {
  // fromEntries defines own properties: a name such as __proto__ stays a name.
  const attrs: Record<string, string> = Object.fromEntries(root.attrs)
  if (root.ns !== contextNs) attrs['xmlns'] = root.ns
  const children = root.children.map((child) => (typeof child === 'string' ? child : toLtx(child, root.ns)))
  return xml(root.name, attrs, ...children)
}

/** An element for the debug log: what SASL exchanges is hidden by @xmpp/debug. */
export function describeLtx(root: LtxElement): string {
  // A copy: hiding empties the element, which may not have been handled yet.
  return hideSensitive(copyOf(root)).toString()
}

function copyOf(root: LtxElement): LtxElement {
  const children = root.children.map((child) => (typeof child === 'string' ? child : copyOf(child)))
  return xml(root.name, { ...root.attrs }, ...children)
}
