/**
 * What a message carries: payload, headers, and the envelope of one that was a plain `<message/>`. As elements, as text, or
 * both: each is made from the other when it is first asked for, so that a batch passes the broker without being parsed twice.
 *
 *     producer            broker                          store             broker                    worker
 *     elements --text--> elements --body, extras: text--> body + meta --> text, never parsed --> elements
 *
 * Invariants:
 * 1. Every element in `body` and `extras` declares its namespace, so the text may stand anywhere.
 * 2. `body` does not depend on the order of attributes (servers change it): a repeated publish has an equal one.
 * 3. Text is only ever made by the writer; `restoreContent` takes back what `storedText` gave.
 * 4. A payload element is never of `xmq:queue:1`.
 */
import { childElements, element, findChild, textElement, type XmlElement, type XmlNode } from '../element.ts'
import { XmqError } from '../errors.ts'
import { NS_CLIENT, NS_JSON, NS_QUEUE } from '../namespaces.ts'
import { parseElement } from '../parse-element.ts'
import { escapedLength, escapeText, wireLength, writeElement } from '../writer.ts'
import { decodeEnvelope, encodeEnvelope, type Envelope } from './envelope.ts'
import { isPayload } from './fields.ts'
import { encodeHeaders, type Headers, headersIn, NO_HEADERS } from './headers.ts'

/** A namespace that no element can have, since XML has no such character: whatever is written in it declares its own. */
const NOWHERE = '\u0000'
/** Limits for text that we wrote ourselves: it was within the limits when it came. */
const OWN_LIMITS = { depthMax: 10_000, attributesMax: 10_000, stanzaBytesMax: Number.MAX_SAFE_INTEGER }
/** Of the text of `meta`, so that a later one can be told from it. */
const META_VERSION = '1'
const COUNT = /^\d{1,15}$/

/** The parts of a message that its producer decides. */
export interface ContentParts {
  /** The payload elements (`<json/>`, `<body/>`, any XML); none of `xmq:queue:1`. */
  readonly payload: readonly XmlElement[]
  readonly headers?: Headers | undefined
  /** Of a message that was published as a plain `<message/>`. */
  readonly envelope?: Envelope | undefined
}

/** A payload that is one element with nothing but text in it: what nearly every message has. */
export type SimpleKind = 'json' | 'body'

/** A simple payload: its text, escaped. */
export interface SimpleText {
  readonly kind: SimpleKind
  readonly escaped: string
  /** Bytes of the text on the wire. */
  readonly bytes: number
}

const NS_OF: Readonly<Record<SimpleKind, string>> = { json: NS_JSON, body: NS_CLIENT }
const OPEN: Readonly<Record<SimpleKind, string>> = {
  json: `<json xmlns='${NS_JSON}'>`,
  body: `<body xmlns='${NS_CLIENT}'>`,
}
const CLOSE: Readonly<Record<SimpleKind, string>> = { json: '</json>', body: '</body>' }

interface ContentText {
  readonly body: string
  readonly extras: string
  readonly bytes: number
}

/** Payload, headers and envelope of one message. See the file's head; made by {@link createContent} and {@link restoreContent}. */
export class ItemContent {
  #parts: ContentParts | undefined
  #text: ContentText | undefined

  constructor(parts: ContentParts | undefined, text: ContentText | undefined) {
    this.#parts = parts
    this.#text = text
  }

  get payload(): readonly XmlElement[] {
    return this.#asParts().payload
  }

  get headers(): Headers {
    return this.#asParts().headers ?? NO_HEADERS
  }

  get envelope(): Envelope | undefined {
    return this.#asParts().envelope
  }

  /** The payload as text. @throws XmqError `illegal-character`, `bad-request` when it cannot be written */
  get body(): string {
    return this.#asText().body
  }

  /** Headers and envelope as text, `''` without them. @throws XmqError as {@link ItemContent.body} */
  get extras(): string {
    // Nearly never has it any, and a packed item needs no other text of it.
    if (this.#text === undefined && this.#parts?.headers === undefined && this.#parts?.envelope === undefined) return ''
    return this.#asText().extras
  }

  /** Bytes on the wire, as `wireLength` counts. @throws XmqError as {@link ItemContent.body} */
  get bytes(): number {
    return this.#asText().bytes
  }

  /** The payload where it is a simple one that is not empty; `undefined` otherwise. @throws XmqError as {@link ItemContent.body} */
  get simple(): SimpleText | undefined {
    const parts = this.#parts
    const kind = parts === undefined ? kindOfText(this.body) : kindOfElements(parts.payload)
    if (kind === undefined) return undefined
    if (parts !== undefined) {
      const text = textOfSimple(parts.payload)
      return { kind, escaped: escapeText(text, `the text of <${kind}>`), bytes: escapedLength(text) }
    }
    const { body, extras, bytes } = this.#asText()
    const escaped = body.slice(OPEN[kind].length, -CLOSE[kind].length)
    // What a store has tells only how long all of it is; nearly never there is more.
    if (extras !== '') return { kind, escaped, bytes: escapedLength(textOfSimple(this.payload)) }
    return { kind, escaped, bytes: bytes - OPEN[kind].length - CLOSE[kind].length }
  }

  #asParts(): ContentParts {
    if (this.#parts === undefined) {
      const { body, extras } = this.#text as ContentText
      this.#parts = readParts(childElements(elementOf(extras + body)), true)
    }
    return this.#parts
  }

  #asText(): ContentText {
    return (this.#text ??= writeParts(this.#parts as ContentParts))
  }
}

/**
 * Content from its parts.
 * @throws XmqError `bad-request` on a payload element of `xmq:queue:1`
 */
export function createContent(parts: ContentParts): ItemContent {
  for (const child of parts.payload) {
    if (child.ns !== NS_QUEUE) continue
    throw new XmqError(
      'bad-request',
      `<${child.name} xmlns='${NS_QUEUE}'> cannot be a payload: that namespace is XMQ's.`,
    )
  }
  return new ItemContent(parts, undefined)
}

/** Content that is a simple payload and nothing else, to be read. */
export function createSimpleContent(kind: SimpleKind, text: string): ItemContent {
  return new ItemContent({ payload: [textElement(kind, NS_OF[kind], text)] }, undefined)
}

/** The same, to be stored or sent on. @param text may be a piece of a large one: it is not kept */
export function writeSimpleContent(kind: SimpleKind, text: string): ItemContent {
  return text === '' ? createSimpleContent(kind, text) : new ItemContent(undefined, simpleText(kind, text))
}

function simpleText(kind: SimpleKind, text: string): ContentText {
  const escaped = escapeText(text, `the text of <${kind}>`)
  const bytes = OPEN[kind].length + escapedLength(text) + CLOSE[kind].length
  return { body: flat(OPEN[kind] + escaped + CLOSE[kind]), extras: '', bytes }
}

const textOfSimple = (payload: readonly XmlElement[]) => payload[0]?.children[0] as string

function kindOfElements(payload: readonly XmlElement[]): SimpleKind | undefined {
  const [first] = payload
  if (first === undefined || payload.length > 1 || first.attrs.size > 0 || first.children.length !== 1) return undefined
  if (typeof first.children[0] !== 'string') return undefined
  if (first.name === 'json' && first.ns === NS_JSON) return 'json'
  return first.name === 'body' && first.ns === NS_CLIENT ? 'body' : undefined
}

function kindOfText(body: string): SimpleKind | undefined {
  const kind = body.startsWith(OPEN.json) ? 'json' : 'body'
  if (!body.startsWith(OPEN[kind]) || !body.endsWith(CLOSE[kind])) return undefined
  // Nothing but text inside: the next tag is the one that ends it.
  return body.indexOf('<', OPEN[kind].length) === body.length - CLOSE[kind].length ? kind : undefined
}

/**
 * Content from the children of an `<item/>`. What else of `xmq:queue:1` stands there is ignored.
 * @param enveloped whether an `<envelope/>` counts: in what the broker says, not in what a producer does
 * @throws XmqError `bad-request`, `too-large` on broken headers
 */
export function readContent(item: XmlElement, enveloped: boolean): ItemContent {
  return new ItemContent(readParts(item.children, enveloped), undefined)
}

function readParts(children: readonly XmlNode[], enveloped: boolean): ContentParts {
  const payload: XmlElement[] = []
  let extra = false
  for (const child of children) {
    if (isPayload(child)) payload.push(child)
    else if (typeof child !== 'string') extra = true
  }
  if (!extra) return { payload }
  const item = element('item', NS_QUEUE, undefined, children)
  const envelope = enveloped ? findChild(item, 'envelope') : undefined
  return {
    payload,
    headers: headersIn(item),
    envelope: envelope === undefined ? undefined : decodeEnvelope(envelope),
  }
}

function writeParts(parts: ContentParts): ContentText {
  let body = ''
  let extras = ''
  let bytes = 0
  const kind = kindOfElements(parts.payload)
  if (kind !== undefined) {
    const simple = simpleText(kind, textOfSimple(parts.payload))
    if (parts.headers === undefined && parts.envelope === undefined) return simple
    body = simple.body
    bytes = simple.bytes
  } else {
    for (const child of parts.payload) {
      body += writeElement(sorted(child), NOWHERE)
      bytes += wireLength(child, NOWHERE)
    }
  }
  const headers = parts.headers === undefined ? undefined : encodeHeaders(parts.headers)
  const envelope = parts.envelope === undefined ? undefined : encodeEnvelope(parts.envelope)
  for (const extra of [headers, envelope]) {
    if (extra === undefined) continue
    extras += writeElement(extra, NOWHERE)
    bytes += wireLength(extra, NOWHERE)
  }
  return { body, extras, bytes }
}

/** The same element with the attributes of each in the order of their names; itself when they are. */
function sorted(root: XmlElement): XmlElement {
  const children = sortedChildren(root.children)
  const attrs = root.attrs.size > 1 ? new Map([...root.attrs].sort(byName)) : root.attrs
  return attrs === root.attrs && children === root.children ? root : { name: root.name, ns: root.ns, attrs, children }
}

function sortedChildren(children: readonly XmlNode[]): readonly XmlNode[] {
  if (children.every((child) => typeof child === 'string')) return children
  return children.map((child) => (typeof child === 'string' ? child : sorted(child)))
}

function byName([left]: readonly [string, string], [right]: readonly [string, string]): number {
  return left < right ? -1 : left > right ? 1 : 0
}

function elementOf(inner: string): XmlElement {
  return parseElement(`<item xmlns='${NS_QUEUE}'>${inner}</item>`, '', OWN_LIMITS)
}

/** Parses text that a codec of this folder wrote. */
export function readWritten(inner: string, ns: string): readonly XmlNode[] {
  return parseElement(`<x xmlns='${ns}'>${inner}</x>`, '', OWN_LIMITS).children
}

/** A message's content as a store keeps it: two texts. */
export interface StoredText {
  /** The payload: equal for equal payloads, however a server had ordered their attributes. */
  readonly body: string
  /** The producer's full JID, headers and envelope. */
  readonly meta: string
}

/**
 * Content as text for a store.
 * @param from the producer's full JID
 * @throws XmqError `illegal-character`, `bad-request` when it cannot be written
 */
export function storedText(content: ItemContent, from: string): StoredText {
  const { body, extras, bytes } = content
  return { body: flat(body), meta: flat(`${META_VERSION} ${bytes} ${from}\n${extras}`) }
}

/**
 * The same text in one piece. A concatenation keeps its parts, and a part the window of the stream that it was read from: what
 * stays in a store would hold several kilobytes each (measured: 3.2 KB instead of 0.5 KB). Looking at a character copies it.
 */
export function flat(text: string): string {
  return text.charCodeAt(0) >= 0 ? text : ''
}

/**
 * Content from the text that {@link storedText} gave. It is sent on without being parsed: hand in nothing else.
 * @throws XmqError `internal` when `meta` is of another version or damaged
 */
export function restoreContent(stored: StoredText): { readonly content: ItemContent; readonly from: string } {
  const { body, meta } = stored
  const end = meta.indexOf('\n')
  // By hand, since a regular expression makes five objects of each message that is delivered.
  const from = meta.indexOf(' ', META_VERSION.length + 1) + 1
  const digits = meta.slice(META_VERSION.length + 1, Math.max(from - 1, 0))
  if (!meta.startsWith(`${META_VERSION} `) || from > end || !COUNT.test(digits)) {
    throw new XmqError('internal', 'A stored message cannot be restored: its meta was not written by this version.')
  }
  const text = { body, extras: meta.slice(end + 1), bytes: Number(digits) }
  return { content: new ItemContent(undefined, text), from: meta.slice(from, end) }
}
