import { connect, defineTopic, type Client } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import { readBody, readLines, parseJson } from './body.ts'
import { connectionOf, durationOf, type ClientFlags } from './client-flags.ts'
import { encodeContent } from './content.ts'
import { EXIT, explain, mistake, type ExitCode } from './exit.ts'
import { untilStopped, type Io } from './io.ts'
import { tellTrouble } from './trouble.ts'

/** Flags of `xmq pub`. */
export interface PubFlags extends ClientFlags {
  readonly json?: boolean
  readonly lines?: boolean
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
  const connection = connectionOf(io, flags)
  if (body !== undefined && flags.lines === true) throw mistake('--lines reads stdin; leave out BODY.')
  if (body === undefined && io.stdin.isTTY === true) {
    throw mistake('There is nothing to publish. Give BODY, or a pipe: echo hello | xmq pub QUEUE TOPIC')
  }
  const isJson = flags.json === true
  const bodies = flags.lines === true ? readLines(io) : [body ?? (await readBody(io))]
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
      const onPublished = (id: string) => {
        if (flags.output === 'json') io.stdout.write(`${JSON.stringify({ queue, topic, id })}\n`)
      }
      await publishAll(client, { topic, isJson, bodies, timeoutMs, onPublished })
    } finally {
      await client.close()
    }
  } finally {
    stop.release()
  }
  return EXIT.ok
}

interface Publishing {
  readonly topic: string
  readonly isJson: boolean
  readonly bodies: Iterable<string> | AsyncIterable<string>
  readonly timeoutMs: number
  onPublished(id: string): void
}

/** @throws XmqError the first refusal, with how many of how many were refused */
async function publishAll(client: Client, publishing: Publishing): Promise<void> {
  const { topic, isJson, bodies, timeoutMs } = publishing
  let refusedCount = 0
  let refusal: XmqError | undefined
  client.on('returned', ({ error }) => {
    refusedCount++
    refusal ??= explain(error, client.queue, topic)
  })
  const text = defineTopic(topic, { encoding: 'text' })
  const json = defineTopic(topic, { encoding: 'xml' })
  let count = 0
  for await (const body of bodies) {
    count++
    if (isJson) parseJson(`Message ${count}`, body)
    const { id } = isJson ? await client.publish(json, encodeContent(body, true)) : await client.publish(text, body)
    publishing.onPublished(id)
  }
  // Streams are ordered: what was refused has come back before this answer.
  const unanswered = await client.ping({ timeout: timeoutMs }).catch((error: unknown) => error)
  const first = firstOf(refusal, refusedCount, count)
  if (first !== undefined) throw first
  if (unanswered !== undefined) throw unanswered
}

function firstOf(refusal: XmqError | undefined, refusedCount: number, count: number): XmqError | undefined {
  if (refusal === undefined || count === 1) return refusal
  const text = `${refusedCount} of ${count} messages were refused: ${refusal.message}`
  return new XmqError(refusal.code, text, { cause: refusal })
}
