/** What a client command sends: from an argument or a pipe, as text or JSON. */
import { WRITE_STANZA_BYTES_MAX, XmqError } from '@xmq/protocol'
import { mistake } from './exit.ts'
import type { Io } from './io.ts'

const LINE_FEED = 0x0a
const CARRIAGE_RETURN = 0x0d
/** Sent as it is: a byte order mark is kept, and what is no UTF-8 is an error and not another character. */
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * All that a pipe brings, its last line break left out.
 * @throws XmqError `too-large` above what one message can hold, `invalid-config` when it is not UTF-8
 */
export async function readBody(io: Io): Promise<string> {
  const gathered = new Bytes('stdin')
  for await (const chunk of io.stdin) gathered.add(bytesOf(chunk))
  return gathered.take().replace(/\r?\n$/, '')
}

/**
 * The lines of a pipe, one by one, without their line breaks; a last line without one counts too.
 * @throws XmqError as {@link readBody}, naming the line
 */
export async function* readLines(io: Io): AsyncGenerator<string> {
  let count = 1
  let line = new Bytes('Line 1 of stdin')
  for await (const chunk of io.stdin) {
    // Bytes, not text: in UTF-8 a line feed is no part of any other character, and each line is checked by itself.
    let rest = bytesOf(chunk)
    for (let end = rest.indexOf(LINE_FEED); end !== -1; end = rest.indexOf(LINE_FEED)) {
      line.add(rest.subarray(0, end))
      yield line.take(CARRIAGE_RETURN)
      line = new Bytes(`Line ${++count} of stdin`)
      rest = rest.subarray(end + 1)
    }
    line.add(rest)
  }
  if (!line.isEmpty) yield line.take(CARRIAGE_RETURN)
}

/** Bytes that come in chunks and are one text in the end. */
class Bytes {
  readonly #what: string
  readonly #chunks: Uint8Array[] = []
  #length = 0

  constructor(what: string) {
    this.#what = what
  }

  get isEmpty(): boolean {
    return this.#length === 0
  }

  add(chunk: Uint8Array): void {
    if (chunk.length === 0) return
    this.#chunks.push(chunk)
    this.#length += chunk.length
    if (this.#length > WRITE_STANZA_BYTES_MAX + 2) {
      throw new XmqError(
        'too-large',
        `${this.#what} has more than ${WRITE_STANZA_BYTES_MAX} bytes, which is the most of a message.`,
      )
    }
  }

  /** The text; without its last byte where that is `dropped`. */
  take(dropped?: number): string {
    const whole = Buffer.concat(this.#chunks)
    const bytes = dropped !== undefined && whole.at(-1) === dropped ? whole.subarray(0, -1) : whole
    try {
      return UTF8.decode(bytes)
    } catch {
      throw mistake(
        `${this.#what} is not UTF-8 text, and a message is text. Send binary data as base64, for example: ` +
          'base64 FILE | xmq pub QUEUE TOPIC',
      )
    }
  }
}

function bytesOf(chunk: string | Uint8Array): Uint8Array {
  return typeof chunk === 'string' ? Buffer.from(chunk) : chunk
}

/** @throws XmqError `invalid-config` when it is not JSON */
export function parseJson(what: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw mistake(`${what} is not JSON: ${(error as Error).message}. Leave out --json to send it as text.`)
  }
}
