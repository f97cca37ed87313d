/** What a client command sends: from an argument or a pipe, as text or JSON. */
import { WRITE_STANZA_BYTES_MAX, XmqError } from '@xmq/protocol'
import { mistake } from './exit.ts'
import type { Io } from './io.ts'

/**
 * All that a pipe brings, its last line break left out.
 * @throws XmqError `too-large` above what one message can hold
 */
export async function readBody(io: Io): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of io.stdin) {
    text += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true })
    if (text.length > WRITE_STANZA_BYTES_MAX + 2) {
      throw new XmqError(
        'too-large',
        `stdin has more than ${WRITE_STANZA_BYTES_MAX} bytes, which is the most of a message.`,
      )
    }
  }
  return (text + decoder.decode()).replace(/\r?\n$/, '')
}

/** The lines of a pipe, one by one, without their line breaks; a last line without one counts too. */
export async function* readLines(io: Io): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of io.stdin) {
    const lines = (rest + (typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true }))).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) yield line.replace(/\r$/, '')
    if (rest.length > WRITE_STANZA_BYTES_MAX) {
      throw new XmqError(
        'too-large',
        `A line has more than ${WRITE_STANZA_BYTES_MAX} bytes, which is the most of a message.`,
      )
    }
  }
  rest += decoder.decode()
  if (rest !== '') yield rest.replace(/\r$/, '')
}

/** @throws XmqError `invalid-config` when it is not JSON */
export function parseJson(what: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw mistake(`${what} is not JSON: ${(error as Error).message}. Leave out --json to send it as text.`)
  }
}
