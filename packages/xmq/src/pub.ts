import { connect, createMessageId, defineTopic, type Client, type PublishOptions } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import { readBody, readLines, parseJson } from './body.ts'
import { connectionOf, durationOf, type ClientFlags } from './client-flags.ts'
import { encodeContent } from './content.ts'
import { EXIT, mistake, type ExitCode } from './exit.ts'
import { paint, untilStopped, type Io } from './io.ts'
import { PubResults, type PubResult } from './pub-results.ts'
import { publishOptionsOf, type PublishFlags } from './publish-flags.ts'
import { tellTrouble } from './trouble.ts'

/** Flags of `xmq pub`. */
export interface PubFlags extends ClientFlags, Omit<PublishFlags, 'mode'> {
  readonly json?: boolean
  readonly timeout: string
  readonly connectTimeout: string
}

/** What to send, and where. */
export interface PubTarget {
  readonly queue: string
  readonly topic: string
  readonly body: string | undefined
}

/** `xmq pub`: publishes, and waits until the queue has taken or refused what was sent. */
export async function pub(io: Io, { queue, topic, body }: PubTarget, flags: PubFlags): Promise<ExitCode> {
  const timeoutMs = durationOf('--timeout', flags.timeout)
  const connectTimeout = durationOf('--connect-timeout', flags.connectTimeout)
  const options = publishOptionsOf(flags)
  const connection = connectionOf(io, flags)
  if (body !== undefined && flags.lines === true) throw mistake('--lines reads stdin; leave out BODY.')
  if (body === undefined && io.stdin.isTTY === true) {
    throw mistake('There is nothing to publish. Give BODY, or a pipe: echo hello | xmq pub QUEUE TOPIC')
  }
  const isJson = flags.json === true
  const isLines = flags.lines === true
  const bodies = isLines ? readLines(io) : [body ?? (await readBody(io))]
  // A wrong argument is told before anything connects.
  if (Array.isArray(bodies) && isJson) for (const text of bodies) parseJson('The body', text)
  const stop = untilStopped(io)
  try {
    const client = await connect({
      ...connection,
      queue,
      connectTimeout,
      publishTimeout: timeoutMs,
      signal: stop.signal,
      on: tellTrouble(io).listeners,
    })
    try {
      const progress = new Progress(io, isLines)
      const tellOne = resultTeller(io, { queue, topic }, flags)
      const tell = (result: PubResult): void => progress.around(result, () => tellOne(result))
      try {
        await publishAll(client, {
          topic,
          options,
          isJson,
          isLines,
          bodies,
          timeoutMs,
          tell,
          drained: async () => io.stdout.drained?.(),
        })
      } finally {
        progress.end()
      }
      await io.stdout.drained?.()
    } finally {
      await client.close()
    }
  } finally {
    stop.release()
  }
  return EXIT.ok
}

/** An object a message on stdout for programs; for people the refusals of several messages, each with its line and id. */
function resultTeller(
  io: Io,
  { queue, topic }: { readonly queue: string; readonly topic: string },
  flags: PubFlags,
): (result: PubResult) => void {
  return ({ id, number, published, error }) => {
    if (flags.output === 'json') {
      const line = flags.lines === true ? { line: number } : {}
      const confirm =
        published === undefined
          ? {}
          : { seq: published.seq, durability: published.durability, duplicate: published.duplicate }
      const outcome =
        error === undefined ? { ok: true, ...confirm } : { error: { code: error.code, text: error.message } }
      io.stdout.write(`${JSON.stringify({ queue, topic, ...line, id, ...outcome })}\n`)
    } else if (error !== undefined && flags.lines === true) {
      io.stderr.write(`${paint(io, 'stderr', 'yellow', 'xmq:')} line ${number}, message ${id}: ${error.message}\n`)
    }
  }
}

const PROGRESS_MS = 250

/** How far it is, on a terminal's last line: for people who publish many lines. */
class Progress {
  readonly #io: Io
  readonly #isShown: boolean
  #told = 0
  #failed = 0
  #shownAt = 0
  #isOnScreen = false

  constructor(io: Io, isLines: boolean) {
    this.#io = io
    this.#isShown = isLines && io.stderr.isTTY === true
  }

  /** Counts a result, and lets it be written with the line out of the way. */
  around({ error }: PubResult, tell: () => void): void {
    this.#told++
    if (error !== undefined) this.#failed++
    if (error !== undefined) this.#clear()
    tell()
    const now = performance.now()
    if (!this.#isShown || now - this.#shownAt < PROGRESS_MS) return
    this.#shownAt = now
    this.#clear()
    this.#isOnScreen = true
    const failed = this.#failed === 0 ? '' : `, ${this.#failed} of them failed`
    this.#io.stderr.write(`${this.#told} lines${failed}`)
  }

  end(): void {
    this.#clear()
  }

  #clear(): void {
    if (this.#isOnScreen) this.#io.stderr.write('\r\u001b[K')
    this.#isOnScreen = false
  }
}

interface Publishing {
  readonly topic: string
  /** Of each message. */
  readonly options: PublishOptions
  readonly isJson: boolean
  readonly isLines: boolean
  readonly bodies: Iterable<string> | AsyncIterable<string>
  readonly timeoutMs: number
  readonly tell: (result: PubResult) => void
  /** Resolves when what was told is taken. */
  readonly drained: () => Promise<unknown>
}

/**
 * Sends all bodies and waits until what became of each is known.
 * @throws XmqError the body that could not be sent; else the first refusal, with how many of how many were refused
 */
async function publishAll(client: Client, publishing: Publishing): Promise<void> {
  const { topic, options, isJson, isLines, bodies, timeoutMs, tell, drained } = publishing
  const results = new PubResults(client, topic, timeoutMs, tell)
  const text = defineTopic(topic, { encoding: 'text' })
  const json = defineTopic(topic, { encoding: 'xml' })
  let number = 0
  let failure: XmqError | undefined
  try {
    for await (const body of bodies) {
      await drained()
      const what = isLines ? `Line ${++number} of stdin` : 'The body'
      if (isJson) parseJson(what, body)
      const id = options.id ?? createMessageId()
      const each = { ...options, id }
      await results.send(id, number, async () => {
        try {
          if (isJson) return await client.publish(json, encodeContent(body, true), each)
          return await client.publish(text, body, each)
        } catch (error) {
          throw isLines ? prefixed(what, XmqError.from(error)) : error
        }
      })
    }
  } catch (error) {
    failure = XmqError.from(error)
  }
  const refusal = await results.settled()
  if (failure !== undefined && isLines && failure !== refusal) throw stoppedAt(failure, results.counts)
  if (failure !== undefined) throw failure
  if (refusal !== undefined) throw refusal
}

function prefixed(what: string, error: XmqError): XmqError {
  return new XmqError(error.code, `${what}: ${error.message}`, { cause: error, condition: error.condition })
}

/** The error of one line, with what became of the lines before it. */
function stoppedAt(failure: XmqError, { sent, failed }: PubResults['counts']): XmqError {
  const outcome = failed === 0 ? '' : `, and ${failed} of them failed`
  const before = `It and what follows it were not sent; ${sent} before it ${sent === 1 ? 'was' : 'were'}${outcome}.`
  const text = `${failure.message} ${before}`
  return new XmqError(failure.code, text, { cause: failure, condition: failure.condition })
}
