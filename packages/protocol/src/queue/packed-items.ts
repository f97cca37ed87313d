/**
 * Items as lines of one text: the {@link ItemCodec} of those who have told each other that they know it. docs/protocol-reliable.md
 * "Packed items".
 *
 *     <publish encoding='packed'>id ⇥ topic ⇥ key ⇥ priority ⇥ delay ⇥ ttl ⇥ extras ⇥ content ⏎ …</publish>
 *     <deliver encoding='packed'>lease ⇥ seq ⇥ id ⇥ topic ⇥ from ⇥ at ⇥ attempt ⇥ failures ⇥ extras ⇥ content ⏎ …</deliver>
 *
 * Both ends and each server between them take a stanza apart into elements and put it together again: most of what a small
 * message costs. A text they pass on as it is.
 *
 * Times are whole milliseconds; an empty field is what an absent attribute is elsewhere. `content` is `j` and the text of a lone
 * `<json/>`, `b` and that of a lone `<body/>`, or `x` and any XML; `extras` are headers and envelope as XML. A backslash, a tab and a
 * line end in a field are `\\`, `\t` and `\n`, but not in the text of `j` and `b`, which has neither tab nor line end.
 */
import { element, textOf, type XmlElement, type XmlNode } from '../element.ts'
import { XmqError } from '../errors.ts'
import { NS_QUEUE } from '../namespaces.ts'
import { parseElement } from '../parse-element.ts'
import { assertTopic } from '../topic.ts'
import { escapedLength, escapeText } from '../writer.ts'
import {
  createSimpleContent,
  flat,
  type ItemContent,
  readContent,
  type SimpleKind,
  writeSimpleContent,
} from './content.ts'
import { assertInteger, assertText, INTEGER, shorten } from './fields.ts'
import type { DeliveredItem, ItemCodec, ItemResult, PublishItem } from './item.ts'
import { BATCH_ITEMS_MAX, DELAY_MS_MAX, ID_BYTES_MAX, JID_BYTES_MAX, KEY_BYTES_MAX, PRIORITY_MAX } from './limits.ts'
import { WrittenItem } from './written.ts'
import { assertDelayBeforeTtl, assertPublishItem } from './xml-items.ts'

/** The attribute `encoding` of a container with packed items. */
export const PACKED = 'packed'

const TAB = '\t'
const TAB_CODE = 9
const LINE_END = '\n'
const TO_BE_ESCAPED = /[\\\t\n]/
/** Anything that is not written as it is, or is more than a byte. */
const NOT_PLAIN = /[^ !#-%(-;=?-[\]-~]/
const KINDS: Readonly<Record<SimpleKind, string>> = { json: 'j', body: 'b' }
const XML = 'x'

/** See the file's head. */
export const PACKED_ITEMS: ItemCodec = Object.freeze({
  encoding: PACKED,
  writePublishItem,
  writeDeliveredItem,
  readPublishItems: (publish) => readLines(publish, readPublishLine),
  readDeliveredItems: (deliver) => readLines(deliver, readDeliveredLine),
} satisfies ItemCodec)

// --- writing ----------------------------------------------------------------------------------------------------------

/** A line while it is written, with its bytes on the wire. */
class LineWriter {
  text = ''
  bytes = 0

  /** Adds a field and the tab behind it. @throws XmqError `illegal-character` */
  add(value: string): void {
    if (!NOT_PLAIN.test(value)) {
      this.text += `${value}\t`
      this.bytes += value.length + 1
      return
    }
    const field = TO_BE_ESCAPED.test(value) ? value.replace(/[\\\t\n]/g, escapeOne) : value
    this.text += `${escapeText(field, 'an item')}\t`
    this.bytes += escapedLength(field) + 1
  }

  addNumber(value: number | undefined): void {
    const digits = value === undefined ? '' : String(value)
    this.text += `${digits}\t`
    this.bytes += digits.length + 1
  }

  /** Adds the last two fields, and ends the line. */
  end(content: ItemContent): void {
    this.add(content.extras)
    const { simple } = content
    if (simple !== undefined && !simple.escaped.includes(TAB) && !simple.escaped.includes(LINE_END)) {
      this.text += `${KINDS[simple.kind]}${simple.escaped}\n`
      this.bytes += simple.bytes + 2
      return
    }
    this.add(`${XML}${content.body}`)
    this.text = `${this.text.slice(0, -1)}\n`
  }
}

function escapeOne(character: string): string {
  return character === TAB ? '\\t' : character === LINE_END ? '\\n' : '\\\\'
}

function writePublishItem(item: PublishItem): WrittenItem {
  assertPublishItem(item)
  const { id, topic, key, priority, delayMs, ttlMs } = item
  const line = new LineWriter()
  line.add(id)
  line.add(topic)
  line.add(key ?? '')
  line.addNumber(priority === 0 ? undefined : priority)
  line.addNumber(delayMs === 0 ? undefined : delayMs)
  line.addNumber(ttlMs)
  line.end(item.content)
  // It may wait for long among thousands: a concatenation would keep a dozen objects alive.
  return new WrittenItem(flat(line.text), line.bytes, PACKED)
}

function writeDeliveredItem(item: DeliveredItem): WrittenItem {
  assertInteger(item.at, 'at', 'item', 0, Number.MAX_SAFE_INTEGER)
  const line = new LineWriter()
  line.add(item.lease)
  line.addNumber(item.seq)
  line.add(item.id ?? '')
  line.add(item.topic)
  line.add(item.from)
  line.addNumber(item.at)
  line.addNumber(item.attempt)
  line.addNumber(item.failures === 0 ? undefined : item.failures)
  line.end(item.content)
  return new WrittenItem(line.text, line.bytes, PACKED)
}

// --- reading ----------------------------------------------------------------------------------------------------------

/** What the lines of a batch have in common, each kept once. */
class Recent {
  topic = ''
  from = ''
}

function readLines<Item>(container: XmlElement, read: (line: LineReader, recent: Recent) => Item): ItemResult<Item>[] {
  // One more than there may be, and what is behind the last line end.
  const lines = textOf(container).split(LINE_END, BATCH_ITEMS_MAX + 2)
  if (lines.at(-1) === '') lines.pop()
  if (lines.length === 0) throw new XmqError('bad-request', `<${container.name}> has no line; expected one an item.`)
  if (lines.length > BATCH_ITEMS_MAX) {
    throw new XmqError('too-large', `<${container.name}> has more than ${BATCH_ITEMS_MAX} items; split it.`)
  }
  const recent = new Recent()
  return lines.map((text) => {
    try {
      return { ok: true, item: read(new LineReader(text), recent) }
    } catch (error) {
      // The first field names the item: the id of a publish, the lease of a delivery.
      const name = readable(text)
      return { ok: false, id: name, lease: name, error: XmqError.from(error) }
    }
  })
}

function readable(text: string): string | undefined {
  try {
    const name = new LineReader(text).field()
    assertText(name, 'id', 'item', ID_BYTES_MAX)
    return name
  } catch {
    return undefined
  }
}

/** A line while it is read. */
class LineReader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  /** The next field. It is copied: a piece of the text would keep the whole stanza in memory. @throws XmqError `bad-request` */
  field(): string {
    const field = this.#cut()
    if (field === '') return field
    if (!field.includes('\\')) return copyOf(field)
    return field.replace(/\\(.?)/gs, unescapeOne)
  }

  /** A field that is probably the same as in the line before. @throws XmqError `bad-request` */
  repeated(recent: Recent, name: keyof Recent): string {
    const from = this.#at
    const field = this.#cut()
    if (field === recent[name]) return recent[name]
    this.#at = from
    recent[name] = this.field()
    return recent[name]
  }

  /** A name that may be absent. @throws XmqError `bad-request` */
  name(name: string, bytesMax: number): string | undefined {
    const field = this.field()
    if (field === '') return undefined
    assertText(field, name, 'item', bytesMax)
    return field
  }

  /** @throws XmqError `bad-request` */
  requiredName(name: string, bytesMax: number): string {
    const field = this.field()
    assertText(field, name, 'item', bytesMax)
    return field
  }

  /** A whole number that may be absent. @throws XmqError `bad-request` */
  number(name: string, min: number, max: number): number | undefined {
    const field = this.#cut()
    if (field === '') return undefined
    const value = INTEGER.test(field) ? Number(field) : Number.NaN
    if (value >= min && value <= max) return value
    throw new XmqError(
      'bad-request',
      `Field '${name}' of a packed item is '${shorten(field)}'; expected a whole number from ${min} to ${max}.`,
    )
  }

  /** @throws XmqError `bad-request` */
  requiredNumber(name: string, min: number, max: number): number {
    const value = this.number(name, min, max)
    if (value !== undefined) return value
    throw new XmqError('bad-request', `Field '${name}' of a packed item is empty; expected a whole number.`)
  }

  /** The last two fields. @param isEnveloped of a delivery, which is read; a publish is passed on @throws XmqError `bad-request`, `too-large` */
  content(isEnveloped: boolean): ItemContent {
    const extras = this.field()
    const kind = this.#text[this.#at]
    const text = this.#text.slice(this.#at + 1)
    const simple = kind === KINDS.json ? 'json' : kind === KINDS.body ? 'body' : undefined
    if (simple === undefined && kind !== XML) {
      throw new XmqError('bad-request', `The content of a packed item is of kind '${kind ?? ''}'; expected j, b or x.`)
    }
    if (simple !== undefined && extras === '')
      return isEnveloped ? createSimpleContent(simple, copyOf(text)) : writeSimpleContent(simple, text)
    const children = [...childrenOf(extras)]
    if (simple === undefined) children.push(...childrenOf(text.replace(/\\(.?)/gs, unescapeOne)))
    else children.push(...createSimpleContent(simple, copyOf(text)).payload)
    return readContent(element('item', NS_QUEUE, undefined, children), isEnveloped)
  }

  #cut(): string {
    // Most are empty.
    if (this.#text.charCodeAt(this.#at) === TAB_CODE) {
      this.#at++
      return ''
    }
    const end = this.#text.indexOf(TAB, this.#at)
    if (end === -1) throw new XmqError('bad-request', 'A packed item has too few fields.')
    const field = this.#text.slice(this.#at, end)
    this.#at = end + 1
    return field
  }
}

function unescapeOne(_: string, character: string): string {
  if (character === '\\') return '\\'
  if (character === 't') return TAB
  if (character === 'n') return LINE_END
  throw new XmqError('bad-request', `A packed item has '\\${character}'; a backslash is written twice.`)
}

/** What stands as XML in a field: within the limits of a stanza's own. @throws XmqError `bad-request` */
function childrenOf(text: string): readonly XmlNode[] {
  if (text === '') return []
  try {
    return parseElement(`<item xmlns='${NS_QUEUE}'>${text}</item>`).children
  } catch (error) {
    const { message } = XmqError.from(error)
    throw new XmqError('bad-request', `A packed item has XML that cannot be read: ${message}`, { cause: error })
  }
}

/** The same characters in a string of their own. Short ones always are. */
function copyOf(piece: string): string {
  return piece.length < 13 ? piece : ` ${piece}`.slice(1)
}

function readPublishLine(line: LineReader, recent: Recent): PublishItem {
  const id = line.requiredName('id', ID_BYTES_MAX)
  const topic = line.repeated(recent, 'topic')
  const key = line.name('key', KEY_BYTES_MAX)
  const priority = line.number('priority', 0, PRIORITY_MAX) ?? 0
  const delayMs = line.number('delay', 0, DELAY_MS_MAX) ?? 0
  const ttlMs = line.number('ttl', 1, DELAY_MS_MAX)
  assertTopic(topic)
  if (ttlMs !== undefined) assertDelayBeforeTtl(delayMs, ttlMs)
  return { id, topic, key, priority, delayMs, ttlMs, content: line.content(false) }
}

function readDeliveredLine(line: LineReader, recent: Recent): DeliveredItem {
  const lease = line.requiredName('lease', ID_BYTES_MAX)
  const seq = line.requiredNumber('seq', 1, Number.MAX_SAFE_INTEGER)
  const id = line.name('id', ID_BYTES_MAX)
  const topic = line.repeated(recent, 'topic')
  const from = line.repeated(recent, 'from')
  const at = line.requiredNumber('at', 0, Number.MAX_SAFE_INTEGER)
  const attempt = line.requiredNumber('attempt', 1, Number.MAX_SAFE_INTEGER)
  const failures = line.number('failures', 0, Number.MAX_SAFE_INTEGER) ?? 0
  assertTopic(topic)
  assertText(from, 'from', 'item', JID_BYTES_MAX)
  return { lease, seq, id, topic, from, at, attempt, failures, content: line.content(true) }
}
