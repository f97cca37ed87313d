/** How a failure is told: what went wrong and how to mend it, never a stack trace for a user's mistake. */
import { EXIT_CODES, exitCodeOf, type ExitCode } from '@xmq/client/process'
import { XmqError } from '@xmq/protocol'
import { paint, type Io, type OutputFormat } from './io.ts'

export { exitCodeOf, type ExitCode } from '@xmq/client/process'

/** How a command ended. */
export const EXIT: typeof EXIT_CODES = EXIT_CODES

/** The exit codes, for help texts. */
export const EXIT_HELP = `
Exit codes:
  0  it worked          3  nobody is subscribed       5  wrong password, or no right to do this
  1  it failed          4  no answer in time          6  no connection to the server or the queue
  2  wrong arguments or configuration                 7  another process has the domain, the store or the port;
                                                         another message has the id`

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
