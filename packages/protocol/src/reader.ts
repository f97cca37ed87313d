/**
 * XML text to elements: a whole XMPP stream fed in pieces, or one element.
 *
 * Not a general XML parser: XMPP forbids document types, processing instructions and comments (RFC 6120 11.1), which is
 * what makes XML dangerous to read. Namespaces are resolved, CDATA sections are text.
 *
 *     PROLOG --<stream:stream>--> BETWEEN --<message>--> INSIDE --</message>--> BETWEEN --</stream:stream>--> CLOSED
 *                                    ^                     | a limit breaks
 *                                    +---- its end --- SKIPPING
 *     any state --malformed, or a handler throws--> FAILED
 *
 * Owner: whoever owns the connection; one reader each. xml-window.ts searches, xml-tag.ts reads start tags, and this file
 * owns what lasts from one piece of text to the next.
 *
 * Invariants:
 * 1. `#open[0]` is the stream's root, `#open[1]` the first-level element, the last one is where text goes.
 * 2. Every character is looked at a bounded number of times, however the text is cut: what a token lacks is sought in new
 *    text only, and a token is read again only once it is whole.
 * 3. What is held is at most one first-level element within the limits, one window, and while skipping nothing.
 * 4. What comes out does not depend on where the text was cut.
 * 5. A string that comes out keeps no more than a window of text alive (V8 strings share their source).
 */
import type { XmlElement, XmlNode } from './element.ts'
import { XmqError, type XmqErrorCode } from './errors.ts'
import { ATTRIBUTES_MAX, DEPTH_MAX, READ_STANZA_BYTES_MAX } from './limits.ts'
import { NS_CLIENT } from './namespaces.ts'
import { findIllegalCharacter, utf8Length } from './writer.ts'
import { isSpace, NameTable, NOT_PLAIN_ASCII } from './xml-characters.ts'
import { type NamespaceScope, NO_SCOPE, readBrokenHead, readStartTag, type StartTag } from './xml-tag.ts'
import { printableName, XmlWindow } from './xml-window.ts'

/** The start of a stream (`<stream:stream …>`). */
export interface StreamRoot {
  readonly name: string
  readonly ns: string
  /** As written, `xmlns` and `xmlns:*` included. */
  readonly attrs: ReadonlyMap<string, string>
}

/** What a stream's reader reports, in the order of the wire. An exception of a handler ends the reader. */
export interface StreamReaderHandlers {
  /** The stream root was opened (`<stream:stream …>`): its attributes, `xmlns` and `xmlns:*` included as written. */
  onOpen(root: StreamRoot): void
  /** A whole first-level element: a stanza, `<stream:features/>`, `<handshake/>`, … */
  onElement(root: XmlElement): void
  /**
   * A first-level element broke a limit and is being skipped to its end: its start tag (no children) and a `too-large` error
   * that says which limit. If the start tag itself is over a limit, of its attributes only `type`, `id`, `from` and `to`, and
   * those only where they were found before the breach. The stream goes on.
   */
  onSkipped(head: XmlElement, error: XmqError): void
  /** `</stream:stream>`. */
  onClose(): void
}

/** Bounds of a first-level element; a breach skips it. */
export interface ReaderLimits {
  /** Most elements open at once inside it, itself counted. @default 32 */
  readonly depthMax: number
  /** Most attributes of one element, namespace declarations counted. @default 64 */
  readonly attributesMax: number
  /** Most bytes of UTF-8, from its `<` to its `>`, as written and with every namespace repeated. @default 2 MiB */
  readonly stanzaBytesMax: number
}

type Building = { name: string; ns: string; attrs: ReadonlyMap<string, string>; children: readonly XmlNode[] }
type TagKind = 'start' | 'end'

const DEFAULT_LIMITS: ReaderLimits = Object.freeze({
  depthMax: DEPTH_MAX,
  attributesMax: ATTRIBUTES_MAX,
  stanzaBytesMax: READ_STANZA_BYTES_MAX,
})
const NO_CHILDREN: readonly XmlNode[] = Object.freeze([])
const WINDOW_LENGTH = 4096
const DECLARATION_LENGTH_MAX = 256
/** Most bytes of what the window before left unread and uncounted. */
const REREAD_BYTES_MAX = 3 * DECLARATION_LENGTH_MAX
const SECTION = '<![CDATA['

/** Reads one XMPP stream. See the file's head. */
export class XmlStreamReader {
  readonly #handlers: StreamReaderHandlers
  readonly #limits: ReaderLimits
  readonly #names: NameTable = new NameTable()
  readonly #window: XmlWindow = new XmlWindow()

  #open: Building[] = []
  #openNames: string[] = []
  #scopes: NamespaceScope[] = []
  /** Text of the innermost open element since its last tag. */
  #text = ''
  #inSection = false
  #declared = false
  #closed = false
  #failure: XmqError | undefined
  #writing = false

  /** Reading position in the window, and how far of it is in `#bytes`. */
  #pos = 0
  #counted = 0
  #ascii = true
  /** The window cannot break the limit, however its characters are encoded: no need to count token by token. */
  #roomy = false
  /** Bytes of the first-level element so far. */
  #bytes = 0

  /** What the last window left unread: an unfinished token. */
  #tail = ''
  #highSurrogate = ''
  /** The unfinished tag that `#tail` begins with, or that is being skipped; then where its reader stands in it. */
  #tag: TagKind | undefined
  #quote = 0
  #slash = false

  #skipping = false
  #skipDepth = 0

  /** @param limits those not given have their defaults */
  constructor(handlers: StreamReaderHandlers, limits: Partial<ReaderLimits> = {}) {
    this.#handlers = handlers
    this.#limits = { ...DEFAULT_LIMITS, ...limits }
  }

  /** Roughly the bytes held for the element that is not whole yet; stays within the limits while one is skipped. */
  get bufferedBytes(): number {
    return (this.#skipping ? 0 : this.#bytes) + this.#tail.length + this.#highSurrogate.length
  }

  /**
   * Starts afresh: a new stream follows, after SASL or on a new connection. Called from a handler, what is left of the text
   * belongs to the new stream. (After STARTTLS that must not be: make a new reader there.)
   *
   * @param contextNs if given, the reader stands inside a stream of that content namespace, as if its root had been read
   */
  reset(contextNs?: string): void {
    this.#open = []
    this.#openNames = []
    this.#scopes = []
    this.#text = this.#tail = this.#highSurrogate = ''
    this.#inSection = this.#declared = this.#closed = this.#skipping = false
    this.#tag = undefined
    this.#failure = undefined
    this.#bytes = 0
    if (this.#writing) this.#counted = this.#pos
    else {
      this.#window.load('', 0)
      this.#pos = this.#counted = 0
    }
    if (contextNs === undefined) return
    this.#open.push({ name: '', ns: '', attrs: new Map(), children: NO_CHILDREN })
    // A name that no end tag can have.
    this.#openNames.push('\u0000')
    this.#scopes.push({ outer: NO_SCOPE, defaultNs: contextNs, prefixes: undefined })
  }

  /**
   * Takes the next text of the stream, of any length, cut anywhere. Handlers are called before it returns.
   * @throws XmqError `malformed-xml` naming the position and the cause: the stream is over, and every further call throws
   */
  write(text: string): void {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#writing) throw new XmqError('internal', 'XmlStreamReader.write() was called from one of its handlers.')
    this.#writing = true
    let done = false
    try {
      if (text.length <= WINDOW_LENGTH) this.#read(text)
      else {
        for (let from = 0; from < text.length; from += WINDOW_LENGTH)
          this.#read(copyOf(text, from, from + WINDOW_LENGTH))
      }
      done = true
    } catch (error) {
      this.#failure = XmqError.from(error)
      throw error
    } finally {
      this.#writing = false
      if (!done) this.#release()
    }
  }

  #release(): void {
    this.#open = []
    this.#openNames = []
    this.#scopes = []
    this.#text = this.#tail = ''
    this.#window.load('', 0)
  }

  /** Reads one piece of text, short enough to be looked at as a whole. */
  #read(piece: string): void {
    let fresh = this.#highSurrogate === '' ? piece : this.#highSurrogate + piece
    this.#highSurrogate = ''
    this.#ascii = !NOT_PLAIN_ASCII.test(fresh)
    let illegal: string | undefined
    if (!this.#ascii) {
      const last = fresh.charCodeAt(fresh.length - 1)
      if (last >= 0xd800 && last < 0xdc00) {
        this.#highSurrogate = fresh.slice(-1)
        fresh = fresh.slice(0, -1)
      }
      const found = findIllegalCharacter(fresh)
      if (found !== undefined) {
        // What stands before it is read first, so that the outcome does not depend on where the text was cut.
        fresh = fresh.slice(0, found.index)
        illegal = found.name
      }
    }
    this.#advance(fresh)
    if (illegal === undefined) return
    this.#window.fail(this.#window.text.length, `character ${illegal} is not allowed in XML`)
  }

  #advance(fresh: string): void {
    const window = this.#window
    const base = window.base + window.text.length - this.#tail.length
    let text = fresh
    this.#counted = 0
    if (this.#tag !== undefined && !this.#skipping) {
      window.load(fresh, base + this.#tail.length)
      if (this.#seekTagEnd(fresh, 0) === -1) {
        this.#holdTag(this.#tail + fresh, fresh)
        return
      }
      this.#counted = this.#tail.length
      this.#tag = undefined
    }
    if (this.#tail !== '') {
      text = [this.#tail, fresh].join('')
      this.#tail = ''
    }
    window.load(text, base)
    this.#pos = 0
    this.#roomy = this.#bytes + fresh.length * 3 + REREAD_BYTES_MAX <= this.#limits.stanzaBytesMax
    while (this.#pos < text.length && this.#step(text)) {
      // Each step reads one token.
    }
    if (this.#roomy && !this.#skipping) this.#countNow(this.#pos)
    // After a tag was put aside the tail is set already.
    if (this.#tag === undefined && this.#pos < text.length) this.#tail = text.slice(this.#pos)
  }

  /** Reads one token. False when the window ends before it does. */
  #step(text: string): boolean {
    if (this.#inSection) return this.#readSection(text)
    if (this.#tag !== undefined) return this.#skipTag(text)
    if (text.charCodeAt(this.#pos) !== 0x3c /* < */) return this.#readText(text)
    const next = text.charCodeAt(this.#pos + 1)
    if (next === 0x21 /* ! */) return this.#openSection(text)
    if (next === 0x3f /* ? */) return this.#readDeclaration(text)
    if (this.#pos + 1 === text.length) return false
    if (this.#skipping) {
      this.#beginTag(next === 0x2f ? 'end' : 'start')
      return this.#skipTag(text)
    }
    return next === 0x2f /* / */ ? this.#readEndTag(text) : this.#readStartTag(text)
  }

  // --- text -----------------------------------------------------------------------------------------------------------

  #readText(text: string): boolean {
    const from = this.#pos
    const end = this.#window.nextTag(from)
    if (this.#skipping) {
      this.#pos = end
      return true
    }
    if (this.#open.length < 2) return this.#readOutside(text, from, end)
    const to = end < text.length ? end : this.#contentEnd(text, from)
    if (to > from) {
      const content = this.#window.content(from, to)
      this.#text = this.#text === '' ? content : this.#text + content
      this.#pos = to
      if (!this.#count(to)) this.#breakBytes()
    }
    return to === end
  }

  /** Where text ends that has its meaning already: before a CR, a `]]` or a reference that the next window may go on with. */
  #contentEnd(text: string, from: number): number {
    let to = text.length
    const last = text.charCodeAt(to - 1)
    if (last === 0xd) to--
    else if (last === 0x5d /* ] */) to -= text.charCodeAt(to - 2) === 0x5d ? 2 : 1
    return this.#window.unfinishedReference(from, Math.max(from, to))
  }

  #readOutside(text: string, from: number, end: number): boolean {
    for (let i = from; i < end; i++) {
      if (isSpace(text.charCodeAt(i))) continue
      if (this.#closed) this.#window.fail(i, 'text stands after the end of the stream')
      if (this.#open.length === 1) this.#window.fail(i, 'text stands between stanzas')
      this.#window.fail(i, 'text stands before the stream; is this the port of an XMPP server')
    }
    this.#pos = this.#counted = end
    return true
  }

  #openSection(text: string): boolean {
    const from = this.#pos
    const start = text.slice(from, from + SECTION.length)
    if (start !== SECTION) {
      if (SECTION.startsWith(start)) return false
      if ('<!--'.startsWith(start.slice(0, 4))) {
        if (start.length < 4) return false
        this.#window.fail(from, 'comments are not allowed in XMPP')
      }
      if ('<!DOCTYPE'.startsWith(start)) {
        if (start.length < 9) return false
        this.#window.fail(from, 'document types are not allowed in XMPP')
      }
      this.#window.fail(from, "'<!' begins neither text nor an element")
    }
    if (this.#open.length < 2 && !this.#skipping) this.#window.fail(from, 'a CDATA section stands outside a stanza')
    this.#inSection = true
    this.#pos = from + SECTION.length
    return true
  }

  #readSection(text: string): boolean {
    const from = this.#pos
    const end = text.indexOf(']]>', from)
    let to = end
    if (end === -1) {
      to = text.length
      const last = text.charCodeAt(to - 1)
      if (last === 0x5d) to -= text.charCodeAt(to - 2) === 0x5d ? 2 : 1
      else if (last === 0xd) to--
      to = Math.max(from, to)
    }
    if (!this.#skipping) this.#text += this.#window.literal(from, to)
    this.#pos = to
    if (end !== -1) {
      this.#inSection = false
      this.#pos = end + 3
    }
    if (!this.#skipping && !this.#count(this.#pos)) this.#breakBytes()
    return end !== -1
  }

  #readDeclaration(text: string): boolean {
    const from = this.#pos
    const start = text.slice(from, from + 6)
    if (
      this.#open.length > 0 ||
      this.#declared ||
      this.#closed ||
      !'<?xml '.startsWith(start.replace(/[\t\r\n]$/, ' '))
    ) {
      this.#window.fail(from, 'processing instructions are not allowed in XMPP')
    }
    const end = text.indexOf('?>', from)
    if (end === -1) {
      if (text.length - from > DECLARATION_LENGTH_MAX) this.#window.fail(from, 'the XML declaration does not end')
      return false
    }
    const declaration = text.slice(from, end + 2)
    const found =
      /^<\?xml\s+version\s*=\s*(["'])1\.[0-9]+\1(?:\s+encoding\s*=\s*(["'])([\w.-]+)\2)?(?:\s+standalone\s*=\s*(["'])(?:yes|no)\4)?\s*\?>$/.exec(
        declaration,
      )
    if (found === null) this.#window.fail(from, 'the XML declaration is wrong')
    const encoding = found[3]
    if (encoding !== undefined && encoding.toLowerCase() !== 'utf-8') {
      this.#window.fail(from, `encoding '${printableName(encoding)}' is not allowed in XMPP, only UTF-8`)
    }
    this.#declared = true
    this.#pos = this.#counted = end + 2
    return true
  }

  // --- tags -----------------------------------------------------------------------------------------------------------

  #readStartTag(text: string): boolean {
    const outer = this.#scopes[this.#scopes.length - 1] ?? NO_SCOPE
    if (this.#closed) this.#window.fail(this.#pos, 'an element stands after the end of the stream')
    const tag = readStartTag(this.#window, this.#pos, this.#names, outer, this.#limits.attributesMax)
    if (tag === undefined) return this.#suspendTag(text, 'start')
    this.#pos = tag.end
    let fits = this.#count(tag.end)
    if (this.#open.length === 0) return this.#openStream(tag, fits)
    const openInside = this.#open.length
    const parent = this.#open[openInside - 1] as Building
    const repeated = tag.added + (openInside > 1 && tag.ns !== parent.ns && tag.xmlns === undefined ? tag.ns.length : 0)
    if (repeated > 0) {
      this.#bytes += repeated
      this.#roomy = false
      fits = this.#countNow(tag.end)
    }
    const child: Building = { name: tag.name.local, ns: tag.ns, attrs: tag.attrs, children: NO_CHILDREN }
    if (tag.tooManyAttributes) {
      return this.#skip(
        child,
        openInside - (tag.selfClosing ? 1 : 0),
        `an element with more than ${this.#limits.attributesMax} attributes`,
      )
    }
    if (openInside > this.#limits.depthMax) {
      return this.#skip(
        child,
        openInside - (tag.selfClosing ? 1 : 0),
        `elements nested more than ${this.#limits.depthMax} deep`,
      )
    }
    if (!fits) {
      return this.#skip(child, openInside - (tag.selfClosing ? 1 : 0), this.#bytesProblem())
    }
    if (openInside > 1) {
      this.#flushText(parent)
      append(parent, child)
    }
    if (!tag.selfClosing) {
      this.#open.push(child)
      this.#openNames.push(tag.name.text)
      this.#scopes.push(tag.scope)
    } else if (openInside === 1) this.#finish(child)
    return true
  }

  #openStream(tag: StartTag, fits: boolean): boolean {
    if (!fits || tag.tooManyAttributes) this.#window.fail(this.#pos, "the stream's start tag is over the limits")
    if (tag.selfClosing) this.#window.fail(this.#pos, 'the stream ends in its start tag')
    const { name, ns, scope } = tag
    const attrs = new Map(tag.attrs)
    if (tag.xmlns !== undefined) attrs.set('xmlns', tag.xmlns)
    this.#open.push({ name: name.local, ns, attrs, children: NO_CHILDREN })
    this.#openNames.push(name.text)
    this.#scopes.push(scope)
    this.#settle()
    this.#handlers.onOpen({ name: name.local, ns, attrs })
    return true
  }

  #readEndTag(text: string): boolean {
    const depth = this.#open.length
    if (depth === 0) this.#window.fail(this.#pos, 'an end tag stands outside the stream')
    const name = this.#openNames[depth - 1] as string
    const nameAt = this.#pos + 2
    let end = nameAt + name.length
    if (!text.startsWith(name, nameAt) || text.charCodeAt(end) !== 0x3e /* > */) {
      end = text.indexOf('>', nameAt)
      if (end === -1) return this.#suspendTag(text, 'end')
      const written = text.slice(nameAt, end)
      if (written.replace(/[ \t\r\n]+$/, '') !== name) {
        this.#window.fail(this.#pos, `</${printableName(written)}> ends <${printableName(name)}>`)
      }
    }
    this.#pos = end + 1
    if (!this.#count(this.#pos) && depth > 1) {
      this.#skip(undefined, depth - 2, this.#bytesProblem())
      return true
    }
    const closing = this.#open.pop() as Building
    this.#openNames.pop()
    this.#scopes.pop()
    if (depth > 1) {
      this.#flushText(closing)
      if (depth === 2) this.#finish(closing)
      return true
    }
    this.#closed = true
    this.#handlers.onClose()
    return true
  }

  #flushText(parent: Building): void {
    if (this.#text === '') return
    append(parent, this.#text)
    this.#text = ''
  }

  #finish(root: Building): void {
    this.#settle()
    this.#handlers.onElement(root)
  }

  /** A first-level element, or the root's start tag, is over: the next one counts from here. */
  #settle(): void {
    this.#bytes = 0
    this.#counted = this.#pos
  }

  // --- tags that the window does not finish ---------------------------------------------------------------------------

  #beginTag(kind: TagKind): void {
    this.#tag = kind
    this.#quote = 0
    this.#slash = false
    this.#pos++
  }

  /** Puts an unfinished tag aside until its end has come. */
  #suspendTag(text: string, kind: TagKind): false {
    const from = this.#pos
    this.#beginTag(kind)
    if (this.#seekTagEnd(text, from + 1) !== -1) this.#window.fail(from, 'a tag is malformed')
    this.#countNow(from)
    this.#pos = this.#counted = text.length
    this.#holdTag(text.slice(from), text.slice(from))
    return false
  }

  #holdTag(tail: string, uncounted: string): void {
    this.#tail = tail
    this.#bytes += this.#ascii ? uncounted.length : utf8Length(uncounted)
    if (this.#bytes <= this.#limits.stanzaBytesMax) return
    this.#tail = ''
    const depth = this.#open.length
    if (depth === 0) this.#window.fail(this.#window.text.length, "the stream's start tag is over the limits")
    if (depth === 1 && this.#tag === 'end')
      this.#window.fail(this.#window.text.length, 'the end of the stream is malformed')
    const outer = this.#scopes[depth - 1] as NamespaceScope
    this.#skip(
      depth === 1 ? { ...readBrokenHead(tail, this.#names, outer), children: NO_CHILDREN } : undefined,
      depth - 1,
      this.#bytesProblem(),
    )
  }

  /** Index of the `>` that ends the tag, -1 when it is not in the text. Goes on where the text before ended. */
  #seekTagEnd(text: string, from: number): number {
    if (this.#tag === 'end') return text.indexOf('>', from)
    let quote = this.#quote
    let slash = this.#slash
    let i = from
    for (; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      if (unit === 0x3c /* < */) this.#window.fail(i, "'<' stands inside a tag; write '&lt;'")
      if (quote !== 0) {
        if (unit === quote) quote = 0
        continue
      }
      if (unit === 0x3e /* > */) break
      slash = unit === 0x2f
      if (unit === 0x22 || unit === 0x27) quote = unit
    }
    this.#quote = quote
    this.#slash = slash
    return i < text.length ? i : -1
  }

  // --- limits ---------------------------------------------------------------------------------------------------------

  /** Counts the bytes up to a position of the window. False when they are too many. */
  #count(to: number): boolean {
    return this.#roomy || this.#countNow(to)
  }

  #countNow(to: number): boolean {
    if (to > this.#counted) {
      this.#bytes += this.#ascii ? to - this.#counted : utf8Length(this.#window.text.slice(this.#counted, to))
      this.#counted = to
    }
    return this.#bytes <= this.#limits.stanzaBytesMax
  }

  #bytesProblem(): string {
    return `more than ${this.#limits.stanzaBytesMax} bytes`
  }

  #breakBytes(): void {
    this.#skip(undefined, this.#open.length - 1, this.#bytesProblem())
  }

  /**
   * Gives the first-level element up.
   * @param broken the element whose start tag broke the limit; `undefined` when it was none
   * @param depth elements of the stanza that are open still
   */
  #skip(broken: Building | undefined, depth: number, problem: string): true {
    const { name, ns, attrs } = (this.#open[1] ?? broken) as Building
    this.#open.length = this.#openNames.length = this.#scopes.length = 1
    this.#text = ''
    this.#bytes = 0
    this.#skipDepth = depth
    this.#skipping = true
    if (depth === 0 && this.#tag === undefined) this.#endSkip()
    const text = `<${printableName(name)}> was skipped: it has ${problem}. Send less in one stanza.`
    const code: XmqErrorCode = 'too-large'
    this.#handlers.onSkipped({ name, ns, attrs, children: NO_CHILDREN }, new XmqError(code, text))
    return true
  }

  #skipTag(text: string): boolean {
    const end = this.#seekTagEnd(text, this.#pos)
    this.#pos = end === -1 ? text.length : end + 1
    if (end === -1) return true
    if (this.#tag === 'end') this.#skipDepth--
    else if (!this.#slash) this.#skipDepth++
    this.#tag = undefined
    if (this.#skipDepth === 0) this.#endSkip()
    return true
  }

  #endSkip(): void {
    this.#skipping = false
    this.#settle()
  }
}

/** A copy in one piece: a slice would keep all of the text alive (invariant 5), a concatenation is slower to read. */
function copyOf(text: string, from: number, to: number): string {
  const middle = from + (WINDOW_LENGTH >> 1)
  return [text.slice(from, middle), text.slice(middle, to)].join('')
}

function append(parent: Building, child: XmlNode): void {
  if (parent.children === NO_CHILDREN) parent.children = [child]
  else (parent.children as XmlNode[]).push(child)
}

/**
 * Reads one whole element: a WebSocket frame (RFC 7395), a stored payload, a literal in a test.
 *
 * @param contextNs the default namespace where the text stands, `jabber:client` unless given, as in `writeElement`
 * @throws XmqError `malformed-xml` when it is not exactly one element, `too-large` when it breaks a limit
 */
export function parseElement(text: string, contextNs: string = NS_CLIENT, limits?: Partial<ReaderLimits>): XmlElement {
  let found: XmlElement | undefined
  const reader = new XmlStreamReader(
    {
      onOpen: () => {},
      onElement(root) {
        if (found !== undefined) throw new XmqError('malformed-xml', 'Malformed XML: more than one element.')
        found = root
      },
      onSkipped(_head, error) {
        throw error
      },
      onClose: () => {},
    },
    limits,
  )
  reader.reset(contextNs)
  reader.write(text)
  if (found !== undefined && reader.bufferedBytes === 0) return found
  const problem = text.trim() === '' ? 'no element' : 'the element does not end'
  throw new XmqError('malformed-xml', `Malformed XML at character ${text.length}: ${problem}.`)
}
