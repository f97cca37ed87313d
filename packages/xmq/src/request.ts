import { connect, defineTopic } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import { readBody, parseJson } from './body.ts'
import { connectionOf, durationOf, type ClientFlags } from './client-flags.ts'
import { contentOfElements, encodeContent } from './content.ts'
import { EXIT, explain, type ExitCode } from './exit.ts'
import { untilStopped, writeLine, type Io } from './io.ts'
import { tellTrouble } from './trouble.ts'

/** Flags of `xmq request`. */
export interface RequestFlags extends ClientFlags {
  readonly json?: boolean
  readonly timeout: string
  readonly connectTimeout: string
}

/** What to ask, and where. */
export interface RequestTarget {
  readonly queue: string
  readonly topic: string
  readonly body: string | undefined
}

/** `xmq request`: asks one worker and prints its answer. */
export async function request(io: Io, target: RequestTarget, flags: RequestFlags): Promise<ExitCode> {
  const { queue, topic } = target
  const timeoutMs = durationOf('--timeout', flags.timeout)
  const connectTimeout = durationOf('--connect-timeout', flags.connectTimeout)
  const connection = connectionOf(io, flags)
  // A request may have no payload: then neither an argument nor a pipe is needed.
  const body = target.body ?? (io.stdin.isTTY === true ? '' : await readBody(io))
  if (flags.json === true && body !== '') parseJson('The body', body)
  const stop = untilStopped(io)
  try {
    const client = await connect({
      ...connection,
      queue,
      connectTimeout,
      signal: stop.signal,
      on: tellTrouble(io).listeners,
    })
    try {
      const startedAt = performance.now()
      const elements = body === '' ? [] : [encodeContent(body, flags.json === true)]
      const answer = await client.request(defineTopic(topic, { encoding: 'xml' }), elements, {
        timeout: timeoutMs,
        signal: stop.signal,
      })
      const { type, payload, text } = contentOfElements(answer)
      const elapsedMs = Math.round(performance.now() - startedAt)
      if (flags.output === 'json') io.stdout.write(`${JSON.stringify({ queue, topic, type, payload, elapsedMs })}\n`)
      else writeLine(io, text)
    } catch (error) {
      throw explain(XmqError.from(error), queue, topic)
    } finally {
      await client.close()
    }
  } finally {
    stop.release()
  }
  return EXIT.ok
}
