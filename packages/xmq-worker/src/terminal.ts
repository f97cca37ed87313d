/** Where a command writes: text for a person, JSON lines for a program. */
import { styleText } from 'node:util'
import { XmqError } from '@xmq/protocol'
import { type ExitCode, exitCodeOf, listenForStop } from '@xmq/client'

/** What a command may touch of the process; tests hand in their own. */
export interface Io {
  readonly stdout: { write(text: string): unknown; readonly isTTY?: boolean }
  readonly stderr: { write(text: string): unknown; readonly isTTY?: boolean }
  /** The directory that relative paths start from. */
  readonly cwd: string
  readonly env: Readonly<Record<string, string | undefined>>
  /**
   * Calls `onStop` when the command is asked to stop, and `onInsist`, with the exit code of such an end, on every later
   * time. The returned function stops listening.
   */
  onStop(onStop: () => void, onInsist: (exitCode: number) => void): () => void
}

export type OutputFormat = 'text' | 'json'

type Paint = 'bold' | 'dim' | 'green' | 'yellow' | 'red' | 'cyan'

/** The process's own streams, directory, environment and signals. */
export function processIo(): Io {
  const { stdout, stderr, env } = process
  return { stdout, stderr, env, cwd: process.cwd(), onStop: listenForStop }
}

/** Colours `text` for `stream`, if that is a terminal and NO_COLOR (https://no-color.org) does not forbid it. */
export function paint(io: Io, stream: 'stdout' | 'stderr', colour: Paint, text: string): string {
  const wanted = io[stream].isTTY === true && (io.env['NO_COLOR'] ?? '') === '' && io.env['TERM'] !== 'dumb'
  return wanted ? styleText(colour, text) : text
}

/** A mistake of the person who typed the command, which ends it with exit code 2. */
export function mistake(text: string): XmqError {
  return new XmqError('invalid-config', text)
}

/** Says what went wrong, without a stack trace, and tells the exit code that belongs to it. */
export function reportFailure(io: Io, format: OutputFormat, thrown: unknown): ExitCode {
  const error = XmqError.from(thrown)
  const exit = exitCodeOf(error)
  const text = error.code === 'internal' && thrown instanceof Error ? describeUnknown(io, thrown) : error.message
  if (format === 'json') io.stderr.write(`${JSON.stringify({ event: 'error', code: error.code, text, exit })}\n`)
  else io.stderr.write(`${paint(io, 'stderr', 'red', 'xmq-worker:')} ${text}\n`)
  return exit
}

/** An error that is not XMQ's comes from the worker's own code: there the place of it is what its author needs. */
function describeUnknown(io: Io, error: Error): string {
  if (io.env['XMQ_DEBUG'] !== undefined) return error.stack ?? error.message
  const place = /\(?((?:file:\/\/)?\/[^\s()]+:\d+:\d+)\)?/.exec(error.stack ?? '')?.[1]
  return `${error.message}${place === undefined ? '' : ` (${place})`}`
}
