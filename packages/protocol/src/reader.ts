/**
 * XML text to elements: a whole XMPP stream, fed in pieces.
 *
 * Not a general XML parser: XMPP forbids document types, processing instructions and comments (RFC 6120 11.1), which is
 * what makes XML dangerous to read. Namespaces are resolved, CDATA sections are text.
 *
 *     PROLOG --<stream:stream>--> BETWEEN --<message>--> INSIDE --</message>--> BETWEEN --</stream:stream>--> CLOSED
 *                                    ^                     | a limit breaks
 *                                    +---- its end --- SKIPPING
 *     any state --malformed, or a handler throws--> FAILED
 *
 * Owner: whoever owns the connection; one reader each. This file owns the reading position, the limits and what a window left
 * unread; xml-window.ts searches, xml-tag.ts and xml-markup.ts know the syntax, xml-tree.ts holds what is open.
 *
 * Invariants:
 * 1. Every character is looked at a bounded number of times, however the text is cut: what a token lacks is sought in new
 *    text only, and a token is read again only once it is whole.
 * 2. What is held is at most one first-level element within the limits, one window, and while skipping nothing.
 * 3. What comes out does not depend on where the text was cut; at most which of several faults of one tag is named.
 * 4. A string that comes out keeps no more than a window of text alive (V8 strings share their source).
 */
import type { XmlElement } from './element.ts'
import { XmqError, type XmqErrorCode } from './errors.ts'
import { ATTRIBUTES_MAX, DEPTH_MAX, READ_STANZA_BYTES_MAX } from './limits.ts'
import { utf8Length } from './writer.ts'
import { findIllegalCharacter, isSpace, NameTable, NOT_PLAIN_ASCII } from './xml-characters.ts'
import { contentEnd, DECLARATION_LENGTH_MAX, declarationEnd, sectionEnd, sectionStart } from './xml-markup.ts'
import { NO_SCOPE, readBrokenHead, readStartTag, type StartTag } from './xml-tag.ts'
import { TagEndSeeker, type TagKind } from './xml-tag-end.ts'
import { headOf, XmlTree } from './xml-tree.ts'
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
   * A first-level element broke a limit (`too-large`) or used a prefix that nothing declares (`malformed-xml`), and is being
   * skipped to its end: its start tag (no children) and why. If that start tag itself is the fault, of its attributes only
   * `type`, `id`, `from` and `to`, and those only where they were found before the breach. The stream goes on.
   */
  onSkipped(head: XmlElement, error: XmqError): void
  /**
   * A child of a first-level element begins. What is returned refuses the whole: it is skipped to its end, without building
   * anything more of it, and `onSkipped` tells that error.
   */
  onChild?(root: XmlElement, child: Pick<XmlElement, 'name' | 'ns'>): XmqError | undefined
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

const DEFAULT_LIMITS: ReaderLimits = Object.freeze({
  depthMax: DEPTH_MAX,
  attributesMax: ATTRIBUTES_MAX,
  stanzaBytesMax: READ_STANZA_BYTES_MAX,
})
const WINDOW_LENGTH = 4096
/** Most bytes of what the window before left unread and uncounted. */
const REREAD_BYTES_MAX = 3 * DECLARATION_LENGTH_MAX
const ROOT_PROBLEM = "a tag of the stream's root is over the limits"
/** A name that no end tag can have. */
const UNWRITTEN_NAME = '\u0000'

/** Reads one XMPP stream. See the file's head. */
export class XmlStreamReader {
  readonly #handlers: StreamReaderHandlers
  readonly #limits: ReaderLimits
  readonly #names: NameTable = new NameTable()
  readonly #window: XmlWindow = new XmlWindow()
  readonly #tree: XmlTree = new XmlTree()
  /** Busy with the unfinished tag that `#tail` begins with, or with one that is being skipped. */
  readonly #tagEnd: TagEndSeeker = new TagEndSeeker()

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

  #skipping = false
  /** Elements of the skipped stanza that are open. */
  #skipDepth = 0

  /** @param limits those not given have their defaults */
  constructor(handlers: StreamReaderHandlers, limits: Partial<ReaderLimits> = {}) {
    this.#handlers = handlers
    this.#limits = { ...DEFAULT_LIMITS, ...limits }
  }

  /** Bytes of text held for the element that is not whole yet: within the limits, and next to nothing while one is skipped. */
  get bufferedBytes(): number {
    const tail = this.#tagEnd.kind === undefined ? this.#tail.length : 0
    return (this.#skipping ? 0 : this.#bytes) + tail + this.#highSurrogate.length
  }

  /**
   * Starts afresh: a new stream follows, after SASL or on a new connection. Called from a handler, what is left of the text
   * belongs to the new stream. (After STARTTLS that must not be: make a new reader there.)
   *
   * @param contextNs if given, the reader stands inside a stream of that content namespace, as if its root had been read
   */
  reset(contextNs?: string): void {
    this.#tree.clear(0)
    this.#tail = this.#highSurrogate = ''
    this.#inSection = this.#declared = this.#closed = this.#skipping = false
    this.#tagEnd.kind = undefined
    this.#failure = undefined
    this.#bytes = 0
    if (!this.#writing) {
      this.#window.load('', 0)
      this.#pos = 0
    }
    this.#counted = this.#pos
    if (contextNs === undefined) return
    this.#tree.openRoot(UNWRITTEN_NAME, { outer: NO_SCOPE, defaultNs: contextNs, prefixes: undefined })
  }

  /**
   * Takes the next text of the stream, of any length, cut anywhere. Handlers are called before it returns.
   * @throws XmqError `malformed-xml` naming the position and the cause: the stream is over, and every further call throws
   */
  write(text: string): void {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#writing) throw new XmqError('internal', 'XmlStreamReader.write() was called from one of its handlers.')
    this.#writing = true
    try {
      if (text.length <= WINDOW_LENGTH) this.#read(text)
      else {
        for (let from = 0; from < text.length; from += WINDOW_LENGTH)
          this.#read(copyOf(text, from, from + WINDOW_LENGTH))
      }
    } catch (error) {
      this.#failure = XmqError.from(error)
      this.#tree.clear(0)
      this.#tail = ''
      throw error
    } finally {
      this.#writing = false
    }
  }

  /** Reads one piece of text, short enough to be looked at as a whole. */
  #read(piece: string): void {
    let fresh = this.#highSurrogate === '' ? piece : this.#highSurrogate + piece
    this.#highSurrogate = ''
    this.#ascii = !NOT_PLAIN_ASCII.test(fresh)
    if (this.#ascii) {
      this.#advance(fresh)
      return
    }
    const last = fresh.charCodeAt(fresh.length - 1)
    if (last >= 0xd800 && last < 0xdc00) {
      this.#highSurrogate = fresh.slice(-1)
      fresh = fresh.slice(0, -1)
    }
    const illegal = findIllegalCharacter(fresh)
    // What stands before it is read first, so that the outcome does not depend on where the text was cut.
    this.#advance(illegal === undefined ? fresh : fresh.slice(0, illegal.index))
    if (illegal !== undefined) this.#failAtEnd(`character ${illegal.name} is not allowed in XML`)
  }

  #advance(fresh: string): void {
    const window = this.#window
    const tail = this.#tail
    const base = window.base + window.text.length - tail.length
    this.#counted = 0
    if (this.#tagEnd.kind !== undefined && !this.#skipping) {
      window.load(fresh, base + tail.length)
      if (this.#tagEnd.seek(window, 0) === -1) {
        this.#holdTag(tail + fresh, fresh)
        return
      }
      this.#tagEnd.kind = undefined
      this.#counted = tail.length
    }
    const text = tail === '' ? fresh : [tail, fresh].join('')
    this.#tail = ''
    window.load(text, base)
    this.#pos = 0
    this.#roomy = this.#bytes + fresh.length * 3 + REREAD_BYTES_MAX <= this.#limits.stanzaBytesMax
    while (this.#pos < text.length && this.#step(text)) {
      // Each step reads one token.
    }
    if (!this.#skipping) this.#countNow(this.#pos)
    if (this.#pos < text.length) this.#tail = text.slice(this.#pos)
  }

  /** Reads one token. False when the window ends before it does. */
  #step(text: string): boolean {
    if (this.#inSection) return this.#readSection()
    if (this.#tagEnd.kind !== undefined) return this.#skipTag(text)
    if (text.charCodeAt(this.#pos) !== 0x3c /* < */) return this.#readText(text)
    if (this.#pos + 1 === text.length) return false
    const next = text.charCodeAt(this.#pos + 1)
    if (next === 0x21 /* ! */) return this.#openSection()
    if (next === 0x3f /* ? */) return this.#readDeclaration()
    if (this.#skipping) {
      this.#tagEnd.begin(next === 0x2f /* / */ ? 'end' : 'start')
      this.#pos++
      return true
    }
    return next === 0x2f ? this.#readEndTag(text) : this.#readStartTag(text)
  }

  // --- text -----------------------------------------------------------------------------------------------------------

  #readText(text: string): boolean {
    const from = this.#pos
    const end = this.#window.nextTag(from)
    if (this.#skipping) {
      this.#pos = end
      return true
    }
    if (this.#tree.depth < 2) return this.#readOutside(text, from, end)
    const to = end < text.length ? end : contentEnd(this.#window, from)
    if (to > from) {
      this.#tree.addText(this.#window.content(from, to))
      this.#pos = to
      if (!this.#count(to)) this.#skip(undefined, this.#tree.depth - 1, this.#bytesProblem())
    }
    return to === end
  }

  #readOutside(text: string, from: number, end: number): boolean {
    for (let i = from; i < end; i++) {
      if (isSpace(text.charCodeAt(i))) continue
      if (this.#closed) this.#window.fail(i, 'text stands after the end of the stream')
      if (this.#tree.depth === 1) this.#window.fail(i, 'text stands between stanzas')
      this.#window.fail(i, 'text stands before the stream; is this the port of an XMPP server')
    }
    this.#pos = this.#counted = end
    return true
  }

  #openSection(): boolean {
    const start = sectionStart(this.#window, this.#pos)
    if (start === undefined) return false
    if (this.#tree.depth < 2 && !this.#skipping) this.#window.fail(this.#pos, 'a CDATA section stands outside a stanza')
    this.#inSection = true
    this.#pos = start
    return true
  }

  #readSection(): boolean {
    const { to, whole } = sectionEnd(this.#window, this.#pos)
    if (!this.#skipping && to > this.#pos) this.#tree.addText(this.#window.literal(this.#pos, to))
    this.#inSection = !whole
    this.#pos = whole ? to + 3 : to
    if (!this.#skipping && !this.#count(this.#pos)) this.#skip(undefined, this.#tree.depth - 1, this.#bytesProblem())
    return whole
  }

  #readDeclaration(): boolean {
    const allowed = this.#tree.depth === 0 && !this.#declared && !this.#closed
    const end = declarationEnd(this.#window, this.#pos, allowed)
    if (end === undefined) return false
    this.#declared = true
    this.#pos = this.#counted = end
    return true
  }

  // --- tags -----------------------------------------------------------------------------------------------------------

  #readStartTag(text: string): boolean {
    if (this.#closed) this.#window.fail(this.#pos, 'an element stands after the end of the stream')
    const tree = this.#tree
    const from = this.#pos
    const tag = readStartTag(this.#window, from, this.#names, tree.scope, this.#limits.attributesMax)
    if (tag === undefined) return this.#suspendTag(text, 'start')
    this.#pos = tag.end
    let fits = this.#count(tag.end)
    const { depth } = tree
    if (depth === 0) return this.#openStream(tag, from, fits)
    // Namespaces declared further out count where they are used: one long name used often must not grow when written.
    const inherited = depth > 1 && tag.xmlns === undefined && tag.ns !== tree.innermost.ns
    if (inherited || tag.added > 0) {
      this.#roomy = false
      this.#bytes += tag.added + (inherited ? tag.ns.length : 0)
      fits = this.#countNow(tag.end)
    }
    if (tag.problem !== undefined || depth > this.#limits.depthMax || !fits) return this.#skipFrom(tag, from, fits)
    if (depth === 2 && this.#handlers.onChild !== undefined) {
      const refusal = this.#handlers.onChild(tree.first as XmlElement, { name: tag.name.local, ns: tag.ns })
      if (refusal !== undefined) return this.#giveUp(undefined, tag.selfClosing ? 1 : 2, refusal)
    }
    const added = tree.add(tag)
    if (depth === 1 && tag.selfClosing) this.#finish(added)
    return true
  }

  #openStream(tag: StartTag, from: number, fits: boolean): boolean {
    if (tag.problem?.kind === 'prefix') this.#window.fail(from, undeclared(tag.problem.prefix))
    if (!fits || tag.problem !== undefined) this.#window.fail(from, ROOT_PROBLEM)
    if (tag.selfClosing) this.#window.fail(from, 'the stream ends in its start tag')
    const attrs = new Map(tag.attrs)
    if (tag.xmlns !== undefined) attrs.set('xmlns', tag.xmlns)
    this.#tree.openRoot(tag.name.text, tag.scope)
    this.#settle()
    this.#handlers.onOpen({ name: tag.name.local, ns: tag.ns, attrs })
    return true
  }

  #readEndTag(text: string): boolean {
    const { depth, name } = this.#tree
    if (depth === 0) this.#window.fail(this.#pos, 'an end tag stands outside the stream')
    const from = this.#pos + 2
    let end = from + name.length
    if (!text.startsWith(name, from) || text.charCodeAt(end) !== 0x3e /* > */) {
      end = text.indexOf('>', from)
      if (end === -1) return this.#suspendTag(text, 'end')
      this.#checkEndTag(text, from, end)
    }
    this.#pos = end + 1
    if (depth === 1) {
      this.#tree.clear(0)
      this.#closed = true
      this.#handlers.onClose()
      return true
    }
    if (!this.#count(this.#pos)) return this.#skip(undefined, depth - 2, this.#bytesProblem())
    const closed = this.#tree.close()
    if (depth === 2) this.#finish(closed)
    return true
  }

  #checkEndTag(text: string, from: number, end: number): void {
    const { name } = this.#tree
    let to = end
    while (to > from && isSpace(text.charCodeAt(to - 1))) to--
    if (to - from === name.length && text.startsWith(name, from)) return
    const opened = name === UNWRITTEN_NAME ? 'nothing' : `<${printableName(name)}>`
    this.#window.fail(from - 2, `</${printableName(text.slice(from, to))}> ends ${opened}`)
  }

  #finish(root: XmlElement): void {
    this.#settle()
    this.#handlers.onElement(root)
  }

  /** A first-level element, or the root's start tag, is over: the next one counts from here. */
  #settle(): void {
    this.#bytes = 0
    this.#counted = this.#pos
  }

  /** Puts an unfinished tag aside until its end has come. */
  #suspendTag(text: string, kind: TagKind): false {
    const from = this.#pos
    this.#tagEnd.begin(kind)
    if (this.#tagEnd.seek(this.#window, from + 1) !== -1) this.#window.fail(from, 'a tag is malformed')
    this.#countNow(from)
    this.#pos = this.#counted = text.length
    const tag = text.slice(from)
    this.#holdTag(tag, tag)
    return false
  }

  #holdTag(tag: string, uncounted: string): void {
    this.#bytes += this.#ascii ? uncounted.length : utf8Length(uncounted)
    this.#tail = tag
    if (this.#bytes <= this.#limits.stanzaBytesMax) return
    this.#tail = ''
    const { depth } = this.#tree
    if (depth === 0 || (depth === 1 && this.#tagEnd.kind === 'end')) {
      this.#window.fail(this.#window.text.length - tag.length, ROOT_PROBLEM)
    }
    this.#skip(depth === 1 ? this.#brokenHead(tag) : undefined, depth - 1, this.#bytesProblem())
  }

  #failAtEnd(cause: string): never {
    return this.#window.fail(this.#window.text.length, cause)
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
    return tooLarge(`more than ${this.#limits.stanzaBytesMax} bytes`)
  }

  #skipFrom(tag: StartTag, from: number, fits: boolean): true {
    const { depth } = this.#tree
    const { problem } = tag
    const broken = depth === 1 && !fits && problem === undefined
    const text = broken ? this.#window.text.slice(from, tag.end) : ''
    const head = broken ? this.#brokenHead(text) : headOf({ name: tag.name.local, ns: tag.ns, attrs: tag.attrs })
    const open = depth - (tag.selfClosing ? 1 : 0)
    // Not the end of the stream: ejabberd passes a client's prefixes on without the declarations of the client's stream root,
    // and a client must not be able to cut a component off.
    if (problem?.kind === 'prefix') return this.#skip(head, open, `${undeclared(problem.prefix)}.`, 'malformed-xml')
    if (problem !== undefined) {
      return this.#skip(head, open, tooLarge(`an element with more than ${this.#limits.attributesMax} attributes`))
    }
    if (!fits) return this.#skip(head, open, this.#bytesProblem())
    return this.#skip(head, open, tooLarge(`elements nested more than ${this.#limits.depthMax} deep`))
  }

  /** Of a start tag that is too long: cut at a place that does not depend on how much of it happens to be here. */
  #brokenHead(tag: string): XmlElement {
    const surely = tag.slice(0, Math.floor(this.#limits.stanzaBytesMax / 3))
    return headOf(readBrokenHead(surely, this.#names, this.#tree.scope))
  }

  /**
   * Gives the first-level element up.
   * @param broken its start tag, where that is what broke the limit
   * @param depth elements of it that are open still
   */
  #skip(broken: XmlElement | undefined, depth: number, problem: string, code: XmqErrorCode = 'too-large'): true {
    const name = printableName(((this.#tree.first ?? broken) as XmlElement).name)
    return this.#giveUp(broken, depth, new XmqError(code, `<${name}> was skipped: ${problem}`))
  }

  #giveUp(broken: XmlElement | undefined, depth: number, error: XmqError): true {
    const head = headOf((this.#tree.first ?? broken) as XmlElement)
    this.#tree.clear(1)
    this.#bytes = 0
    this.#skipDepth = depth
    this.#skipping = depth > 0 || this.#tagEnd.kind !== undefined
    if (!this.#skipping) this.#settle()
    this.#handlers.onSkipped(head, error)
    return true
  }

  #skipTag(text: string): boolean {
    const end = this.#tagEnd.seek(this.#window, this.#pos)
    if (end === -1) {
      this.#pos = text.length
      return true
    }
    this.#pos = end + 1
    if (this.#tagEnd.kind === 'end') this.#skipDepth--
    else if (!this.#tagEnd.selfClosing) this.#skipDepth++
    this.#tagEnd.kind = undefined
    if (this.#skipDepth > 0) return true
    this.#skipping = false
    this.#settle()
    return true
  }
}

function tooLarge(what: string): string {
  return `it has ${what}. Send less in one stanza.`
}

function undeclared(prefix: string): string {
  return `prefix '${printableName(prefix)}' is not declared`
}

/** A copy in one piece: a slice would keep all of the text alive (invariant 4), a concatenation is slower to read. */
function copyOf(text: string, from: number, to: number): string {
  const middle = from + (WINDOW_LENGTH >> 1)
  return [text.slice(from, middle), text.slice(middle, to)].join('')
}
