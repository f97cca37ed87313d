/** Exit codes, and how a failure is told: what went wrong and how to mend it, never a stack trace for a user's mistake. */
import { XmqError, type XmqErrorCode } from '@xmq/protocol'
import { paint, type Io, type OutputFormat } from './io.ts'

/** How a command ended. */
export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  noRecipients: 3,
  timeout: 4,
  notAuthorized: 5,
  noConnection: 6,
} as const

/** How a command ended. */
export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

/** The exit codes, for help texts. */
export const EXIT_HELP = `
Exit codes:
  0  it worked          3  nobody is subscribed       5  wrong password, or no right to do this
  1  it failed          4  no answer in time          6  no connection to the server or the queue
  2  wrong arguments or configuration`

const CODES: Partial<Record<XmqErrorCode, ExitCode>> = {
  'bad-request': EXIT.usage,
  'invalid-config': EXIT.usage,
  'illegal-character': EXIT.usage,
  'no-recipients': EXIT.noRecipients,
  timeout: EXIT.timeout,
  'not-authorized': EXIT.notAuthorized,
  forbidden: EXIT.notAuthorized,
  'connection-lost': EXIT.noConnection,
}

/** The exit code of an error. */
export function exitCodeOf(error: XmqError): ExitCode {
  // The server is there, and says that the queue's broker is not.
  if (error.code === 'server' && error.condition.startsWith('remote-server-')) return EXIT.noConnection
  return CODES[error.code] ?? EXIT.failure
}

/** An error of a client command, in words that name the queue and the topic where the queue's own do not. */
export function explain(error: XmqError, queue: string, topic: string): XmqError {
  if (error.code !== 'no-recipients') return error
  const text = `Nobody is subscribed to '${topic}' at ${queue}. Subscribe with: xmq sub ${queue} ${topic}`
  return new XmqError('no-recipients', text, { cause: error })
}

/** A mistake in how the command was called. */
export function mistake(text: string): XmqError {
  return new XmqError('invalid-config', text)
}

/** Says what went wrong and tells the exit code that belongs to it. */
export function reportFailure(io: Io, format: OutputFormat, thrown: unknown): ExitCode {
  const error = XmqError.from(thrown)
  const code = exitCodeOf(error)
  if (format === 'json') {
    io.stderr.write(`${JSON.stringify({ error: { code: error.code, text: error.message, exit: code } })}\n`)
    return code
  }
  io.stderr.write(`${paint(io, 'stderr', 'red', 'xmq:')} ${error.message}\n`)
  // A fault of ours, not of the user: then the place helps whoever mends it.
  if (!(thrown instanceof XmqError) && thrown instanceof Error && (io.env['XMQ_DEBUG'] ?? '') !== '') {
    io.stderr.write(`${thrown.stack ?? ''}\n`)
  }
  return code
}
