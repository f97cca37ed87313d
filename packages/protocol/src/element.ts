/**
 * The XML that XMPP needs: elements, attributes and text. Immutable once built.
 *
 * Invariants:
 * 1. `name` is a local name, `ns` its namespace; element prefixes do not survive reading.
 * 2. `attrs` is keyed by the name as written. A prefixed attribute other than `xml:*` stands beside its own
 *    `xmlns:prefix` declaration on the same element, so every subtree can be moved as it is.
 * 3. `attrs` never holds `xmlns`: the writer derives it from `ns`.
 */

/** An element or a run of text. */
export type XmlNode = XmlElement | string

/** One XML element. */
export interface XmlElement {
  /** The local name. */
  readonly name: string
  /** The namespace, `''` for none. */
  readonly ns: string
  /** Attributes by their name as written (`topic`, `xml:lang`). A map, so that `__proto__` is a name like any other. */
  readonly attrs: ReadonlyMap<string, string>
  readonly children: readonly XmlNode[]
}

/** Attributes for {@link element}; one that is `undefined` is left out. */
export type AttrsInput = Readonly<Record<string, string | undefined>>

const NO_ATTRS: ReadonlyMap<string, string> = new Map()
const NO_CHILDREN: readonly XmlNode[] = Object.freeze([])

/**
 * Builds an element.
 *
 * @param name local name
 * @param ns namespace, `''` for none
 * @param attrs attributes; `undefined` values are left out
 * @param children elements and text; `undefined` entries are left out
 */
export function element(
  name: string,
  ns: string,
  attrs?: AttrsInput,
  children?: readonly (XmlNode | undefined)[],
): XmlElement {
  return {
    name,
    ns,
    attrs: attrs === undefined ? NO_ATTRS : attrMap(attrs),
    children: children === undefined ? NO_CHILDREN : children.filter((child) => child !== undefined && child !== ''),
  } as XmlElement
}

/** An element with nothing but text in it. */
export function textElement(name: string, ns: string, text: string): XmlElement {
  return { name, ns, attrs: NO_ATTRS, children: text === '' ? NO_CHILDREN : [text] }
}

function attrMap(attrs: AttrsInput): ReadonlyMap<string, string> {
  const map = new Map<string, string>()
  for (const name of Object.keys(attrs)) {
    const value = attrs[name]
    if (value !== undefined) map.set(name, value)
  }
  return map
}

/** The same element with some attributes replaced, or removed where the value is `undefined`. */
export function withAttrs(base: XmlElement, changes: AttrsInput): XmlElement {
  const attrs = new Map(base.attrs)
  for (const name of Object.keys(changes)) {
    const value = changes[name]
    if (value === undefined) attrs.delete(name)
    else attrs.set(name, value)
  }
  return { name: base.name, ns: base.ns, attrs, children: base.children }
}

/** The same element with other children. */
export function withChildren(base: XmlElement, children: readonly XmlNode[]): XmlElement {
  return { name: base.name, ns: base.ns, attrs: base.attrs, children }
}

/** Whether a node is an element of that name and namespace. */
export function isElement(node: XmlNode, name: string, ns: string): node is XmlElement {
  return typeof node !== 'string' && node.name === name && node.ns === ns
}

/** The first child element of that name; in the parent's own namespace unless another is given. */
export function findChild(parent: XmlElement, name: string, ns: string = parent.ns): XmlElement | undefined {
  for (const child of parent.children)
    if (typeof child !== 'string' && child.name === name && child.ns === ns) return child
  return undefined
}

/** The child elements, without the text between them. */
export function childElements(parent: XmlElement): XmlElement[] {
  return parent.children.filter((child): child is XmlElement => typeof child !== 'string')
}

/** The text directly inside an element, joined. */
export function textOf(parent: XmlElement): string {
  const first = parent.children[0]
  if (parent.children.length === 1 && typeof first === 'string') return first
  let text = ''
  for (const child of parent.children) if (typeof child === 'string') text += child
  return text
}
