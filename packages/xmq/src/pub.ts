import { connect, defineTopic, type Client } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import { readBody, readLines, parseJson } from './body.ts'
import { connectionOf, durationOf, type ClientFlags } from './client-flags.ts'
import { encodeContent } from './content.ts'
import { EXIT, explain, mistake, type ExitCode } from './exit.ts'
import { untilStopped, type Io } from './io.ts'

/** Flags of `xmq pub`. */
export interface PubFlags extends ClientFlags {
  readonly json?: boolean
  readonly lines?: boolean
  readonly timeout: string
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
      connectTimeout: timeoutMs,
      publishTimeout: timeoutMs,
      signal: stop.signal,
    })
    try {
      const ids = await publishAll(client, { topic, isJson, bodies, timeoutMs }).catch((error: unknown) => {
        throw explain(error, queue, topic)
      })
      if (flags.output === 'json') for (const id of ids) io.stdout.write(`${JSON.stringify({ queue, topic, id })}\n`)
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
}

/** @throws XmqError the first refusal, with how many of how many were refused */
async function publishAll(
  client: Client,
  { topic, isJson, bodies, timeoutMs }: Publishing,
): Promise<readonly string[]> {
  const refused: XmqError[] = []
  client.on('returned', ({ error }) => refused.push(error))
  const text = defineTopic(topic, { encoding: 'text' })
  const json = defineTopic(topic, { encoding: 'xml' })
  const ids: string[] = []
  for await (const body of bodies) {
    if (isJson) parseJson(`Message ${ids.length + 1}`, body)
    const { id } = isJson ? await client.publish(json, encodeContent(body, true)) : await client.publish(text, body)
    ids.push(id)
  }
  // Streams are ordered: what was refused has come back before this answer.
  const unanswered = await client.ping({ timeout: timeoutMs }).catch((error: unknown) => error)
  const [first] = refused
  if (first === undefined) {
    if (unanswered !== undefined) throw unanswered
    return ids
  }
  if (ids.length === 1) throw first
  throw new XmqError(first.code, `${refused.length} of ${ids.length} messages were refused: ${first.message}`, {
    cause: first,
  })
}
