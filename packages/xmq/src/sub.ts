import { defineTopic, Worker, type XmlElement } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import { parseJson } from './body.ts'
import { connectionOf, durationOf, type ClientFlags } from './client-flags.ts'
import { contentOf, encodeContent } from './content.ts'
import { EXIT, mistake, type ExitCode } from './exit.ts'
import { paint, untilStopped, writeLine, type Io } from './io.ts'
import { tellTrouble } from './trouble.ts'

/** Flags of `xmq sub`. */
export interface SubFlags extends ClientFlags {
  readonly count?: string
  readonly reply?: string
  readonly json?: boolean
  readonly timeout: string
}

/** Deliveries that may wait for a slow reader of stdout before the queue stops sending. */
const PREFETCH = 99

/** `xmq sub`: prints what arrives, until Ctrl-C or `--count`. */
export async function sub(
  io: Io,
  { queue, topic }: { readonly queue: string; readonly topic: string },
  flags: SubFlags,
): Promise<ExitCode> {
  const timeoutMs = durationOf('--timeout', flags.timeout)
  const countMax = countOf(flags.count)
  const reply = replyOf(flags)
  const connection = connectionOf(io, flags)
  const stop = untilStopped(io)
  let count = 0
  let onEnough: () => void = () => {}
  const enough = new Promise<void>((resolve) => {
    onEnough = resolve
  })
  const trouble = tellTrouble(io)
  const worker = new Worker({
    ...connection,
    queue,
    connectTimeout: timeoutMs,
    concurrency: 1,
    prefetch: PREFETCH,
    on: {
      ...trouble.listeners,
      subscribed: () => trouble.forget(),
      failed({ kind, id, error }) {
        if (error.code !== 'overloaded') trouble.tell(`${kind} ${id}: ${error.message}`)
      },
    },
  })
  worker.handle(defineTopic(topic, { encoding: 'xml' }), async (_, { id, from, kind, raw }) => {
    if (count >= countMax) throw new XmqError('overloaded', 'This subscriber has seen what it wanted.')
    const { type, payload, text } = contentOf(raw)
    if (flags.output === 'json') {
      io.stdout.write(`${JSON.stringify({ queue, topic, kind, id, from, type, payload })}\n`)
    } else {
      writeLine(io, text)
    }
    count++
    if (count >= countMax) onEnough()
    await io.stdout.drained?.()
    if (kind === 'request' && reply === undefined) {
      throw new XmqError('handler-failed', "'xmq sub' answers requests only with --reply.")
    }
    return reply ?? []
  })
  const ended = new Promise<XmqError | undefined>((resolve) => worker.on('closed', ({ reason }) => resolve(reason)))
  try {
    // A Ctrl-C while it connects stops it; then start() is rejected with `closed`.
    const isStarted = await Promise.race([worker.start().then(() => true), stop.done.then(() => false)])
    if (!isStarted) return EXIT.ok
    if (io.stderr.isTTY === true) {
      io.stderr.write(`${paint(io, 'stderr', 'dim', `subscribed to ${topic} at ${queue}; Ctrl-C ends it`)}\n`)
    }
    const reason = await Promise.race([stop.done, enough, ended])
    if (reason instanceof XmqError) throw reason
    return EXIT.ok
  } finally {
    await worker.stop()
    stop.release()
  }
}

function countOf(text: string | undefined): number {
  if (text === undefined) return Number.POSITIVE_INFINITY
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text)
  throw mistake(`--count: '${text}' is no whole number from 1 on.`)
}

function replyOf({ reply, json }: SubFlags): readonly XmlElement[] | undefined {
  if (reply === undefined) return undefined
  if (json === true) parseJson('--reply', reply)
  return [encodeContent(reply, json === true)]
}
