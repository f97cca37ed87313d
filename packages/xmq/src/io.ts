/** What a command may touch of the process. Tests hand in their own. */
import { once } from 'node:events'
import { styleText } from 'node:util'
import { listenForStop } from '@xmq/client/process'

/** Where text goes. */
export interface TextSink {
  write(text: string): unknown
  readonly isTTY?: boolean
  /** Resolves when what was written is taken: whoever writes much waits for it. */
  drained?(): Promise<unknown>
}

/** What a command may touch of the process. */
export interface Io {
  readonly stdin: AsyncIterable<string | Uint8Array> & { readonly isTTY?: boolean }
  readonly stdout: TextSink
  readonly stderr: TextSink
  readonly env: Readonly<Record<string, string | undefined>>
  /** The directory that relative paths start from. */
  readonly cwd: string
  /** Calls `listener` on SIGINT and SIGTERM. The returned function stops that. */
  onStop(listener: () => void): () => void
}

/** How results are written. */
export const OUTPUT_FORMATS = ['text', 'json'] as const
/** `text` for people, `json` (one object a line) for programs. */
export type OutputFormat = (typeof OUTPUT_FORMATS)[number]

type Paint = 'bold' | 'dim' | 'green' | 'yellow' | 'red' | 'cyan'

/** The process's own streams, environment and directory. */
export function processIo(): Io {
  // `xmq sub … | head -1` closes the pipe; that is an end, not a failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))
  return {
    stdin: process.stdin,
    stdout: {
      isTTY: process.stdout.isTTY,
      write: (text) => process.stdout.write(text),
      drained: () => (process.stdout.writableNeedDrain ? once(process.stdout, 'drain') : Promise.resolve()),
    },
    stderr: process.stderr,
    env: process.env,
    cwd: process.cwd(),
    // A second Ctrl-C does not wait.
    onStop: (listener) => listenForStop(listener, (exitCode) => process.exit(exitCode)),
  }
}

/** Whether a stream shows colours: a terminal, and NO_COLOR (https://no-color.org) not set. */
export function hasColor(io: Io, stream: 'stdout' | 'stderr'): boolean {
  return io[stream].isTTY === true && (io.env['NO_COLOR'] ?? '') === '' && io.env['TERM'] !== 'dumb'
}

/** Colours `text` where the stream shows colours. */
export function paint(io: Io, stream: 'stdout' | 'stderr', color: Paint, text: string): string {
  return hasColor(io, stream) ? styleText(color, text, { validateStream: false }) : text
}

/** Writes one line; on a terminal without the control characters that a stranger may have put into it. */
export function writeLine(io: Io, text: string): void {
  // oxlint-disable-next-line no-control-regex -- control characters are what it replaces
  const line = io.stdout.isTTY === true ? text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '\ufffd') : text
  io.stdout.write(`${line}\n`)
}

/** Resolves when the process is asked to stop. */
export function untilStopped(io: Io): { readonly signal: AbortSignal; readonly done: Promise<void>; release(): void } {
  const controller = new AbortController()
  const done = new Promise<void>((resolve) =>
    controller.signal.addEventListener('abort', () => resolve(), { once: true }),
  )
  const release = io.onStop(() => controller.abort())
  return { signal: controller.signal, done, release }
}
