/**
 * The elements that are open, and the text that the innermost one has collected.
 *
 * Owner: {@link XmlStreamReader}.
 *
 * Invariants:
 * 1. The three stacks are equally long. Index 0 is the stream's root, which collects nothing; 1 is the first-level element.
 * 2. An element's children change only while it is open.
 */
import type { XmlElement, XmlNode } from './element.ts'
import type { NamespaceScope, StartTag } from './xml-tag.ts'
import { NO_SCOPE } from './xml-tag.ts'

type Building = { name: string; ns: string; attrs: ReadonlyMap<string, string>; children: readonly XmlNode[] }

const NO_CHILDREN: readonly XmlNode[] = Object.freeze([])

/** A start tag without children. */
export function headOf(tag: Pick<XmlElement, 'name' | 'ns' | 'attrs'>): XmlElement {
  return { name: tag.name, ns: tag.ns, attrs: tag.attrs, children: NO_CHILDREN }
}

/** See the file's head. */
export class XmlTree {
  #open: Building[] = []
  #names: string[] = []
  #scopes: NamespaceScope[] = []
  #text = ''

  /** Open elements, the stream's root counted. */
  get depth(): number {
    return this.#open.length
  }

  /** The first-level element, as far as it is read. */
  get first(): XmlElement | undefined {
    return this.#open[1]
  }

  /** The innermost open element. There is one when `depth` is above 0. */
  get innermost(): XmlElement {
    return this.#open[this.#open.length - 1] as Building
  }

  /** The innermost open element's name as written. */
  get name(): string {
    return this.#names[this.#names.length - 1] as string
  }

  /** The namespaces in force. */
  get scope(): NamespaceScope {
    return this.#scopes[this.#scopes.length - 1] ?? NO_SCOPE
  }

  /** Forgets everything, or all but the root. */
  clear(keep: 0 | 1): void {
    this.#open = this.#open.slice(0, keep)
    this.#names = this.#names.slice(0, keep)
    this.#scopes = this.#scopes.slice(0, keep)
    this.#text = ''
  }

  /** Opens the stream's root. */
  openRoot(name: string, scope: NamespaceScope): void {
    this.#open.push({ name, ns: '', attrs: new Map(), children: NO_CHILDREN })
    this.#names.push(name)
    this.#scopes.push(scope)
  }

  /** Adds an element, which stays open unless its tag closes itself. */
  add(tag: StartTag): XmlElement {
    const child: Building = { name: tag.name.local, ns: tag.ns, attrs: tag.attrs, children: NO_CHILDREN }
    if (this.#open.length > 1) {
      this.#flush()
      append(this.#open[this.#open.length - 1] as Building, child)
    }
    if (tag.selfClosing) return child
    this.#open.push(child)
    this.#names.push(tag.name.text)
    this.#scopes.push(tag.scope)
    return child
  }

  /** Adds text to the innermost open element. */
  addText(text: string): void {
    this.#text = this.#text === '' ? text : this.#text + text
  }

  /** Closes the innermost open element and returns it. */
  close(): XmlElement {
    if (this.#text !== '') this.#flush()
    this.#names.pop()
    this.#scopes.pop()
    return this.#open.pop() as Building
  }

  #flush(): void {
    if (this.#text === '') return
    append(this.#open[this.#open.length - 1] as Building, this.#text)
    this.#text = ''
  }
}

function append(parent: Building, child: XmlNode): void {
  if (parent.children === NO_CHILDREN) parent.children = [child]
  else (parent.children as XmlNode[]).push(child)
}
