/** Commands that ask the queue itself, and end with its answer. */
import { type Client, connect } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import { connectionOf, durationOf, type ClientFlags } from './client-flags.ts'
import { untilStopped, type Io } from './io.ts'
import { tellTrouble } from './trouble.ts'

/** Flags of every command that asks. */
export interface AskFlags extends ClientFlags {
  readonly timeout: string
  readonly connectTimeout: string
}

/** Of each question that a command asks: options of the client's methods. */
export interface AskOptions {
  readonly timeout: number
  readonly signal: AbortSignal
}

/** Connects, asks, and closes. @throws XmqError also where nobody serves the queue now */
export async function askQueue<Answer>(
  io: Io,
  queue: string,
  flags: AskFlags,
  ask: (client: Client, options: AskOptions, jid: string) => Promise<Answer>,
): Promise<Answer> {
  const timeout = durationOf('--timeout', flags.timeout)
  const connectTimeout = durationOf('--connect-timeout', flags.connectTimeout)
  const connection = connectionOf(io, flags)
  const stop = untilStopped(io)
  // Whoever asks is waiting for it: where nobody serves the queue now, that is the answer.
  const absence = new AbortController()
  let reason: XmqError | undefined
  const waiting = (event: { readonly reason: XmqError }): void => {
    reason = event.reason
    absence.abort(reason)
  }
  try {
    const on = { ...tellTrouble(io).listeners, waiting }
    const client = await connect({ ...connection, queue, connectTimeout, signal: stop.signal, on })
    try {
      const signal = AbortSignal.any([stop.signal, absence.signal])
      return await ask(client, { timeout, signal }, connection.jid)
    } catch (error) {
      throw reason ?? explainSilence(XmqError.from(error), queue, flags)
    } finally {
      await client.close()
    }
  } finally {
    stop.release()
  }
}

function explainSilence(error: XmqError, queue: string, { timeout }: AskFlags): XmqError {
  if (error.code !== 'timeout') return error
  const text =
    `${queue} did not answer within ${timeout}. Is its broker well? /readyz and its log tell. ` +
    'Where it is only slow, wait longer: --timeout 1m'
  return new XmqError('timeout', text, { cause: error })
}
