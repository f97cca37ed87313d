/**
 * Elements whose children are text already: what a batch of items becomes without a tree in between.
 *
 * Owner: the codecs of this folder. Nothing else can make one: the classes are exported as types only.
 *
 * Invariants:
 * 1. The text inside came from `writeElement`, `escapeText` or `escapeAttr` of this package, or from a store to which a codec
 *    gave it (`restoreContent`). So it is well-formed, and it closes what it opens.
 * 2. It may stand in any element of the namespace that it was made for: what is of another one declares it.
 * 3. Its bytes are what `wireLength` counts of its children, plus the namespaces that they declare needlessly.
 */
import type { XmlElement, XmlNode } from '../element.ts'

/**
 * An element with its children as text. To everyone but the writer it is an element: `children` parses at the first look.
 * Copy one with `withAttrs` or `withChildren`: a spread has no children.
 */
export class WrittenElement implements XmlElement {
  readonly name: string
  readonly ns: string
  readonly attrs: ReadonlyMap<string, string>
  readonly #inner: string
  readonly #innerBytes: number
  readonly #read: (inner: string, ns: string) => readonly XmlNode[]
  #children: readonly XmlNode[] | undefined

  constructor(
    head: Pick<XmlElement, 'name' | 'ns' | 'attrs'>,
    inner: string,
    innerBytes: number,
    read: (inner: string, ns: string) => readonly XmlNode[],
  ) {
    this.name = head.name
    this.ns = head.ns
    this.attrs = head.attrs
    this.#inner = inner
    this.#innerBytes = innerBytes
    this.#read = read
  }

  get children(): readonly XmlNode[] {
    return (this.#children ??= this.#read(this.#inner, this.ns))
  }

  /** The text of its children, or `undefined` of any other element. For the writer. */
  static innerOf(root: XmlElement): string | undefined {
    return #inner in root ? root.#inner : undefined
  }

  /** Bytes of its children as `wireLength` counts them, or `undefined` of any other element. For the writer. */
  static innerBytesOf(root: XmlElement): number | undefined {
    return #inner in root ? root.#innerBytes : undefined
  }
}

/** One item of a batch, ready to be sent, as often as it takes, beside others of the same encoding. */
export class WrittenItem {
  /** Bytes on the wire, as `wireLength` counts. */
  readonly bytes: number
  /** Of the codec that wrote it. */
  readonly encoding: string | undefined
  readonly #text: string

  constructor(text: string, bytes: number, encoding?: string) {
    this.#text = text
    this.bytes = bytes
    this.encoding = encoding
  }

  /** The text of several, one after the other. */
  static textOf(items: readonly WrittenItem[]): string {
    let text = ''
    for (const item of items) text += item.#text
    return text
  }
}
