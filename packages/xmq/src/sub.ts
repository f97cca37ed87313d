import { defineTopic, type HandleOptions, type HandlerContext, Worker, type XmlElement } from '@xmq/client'
import { SUBSCRIPTION_NAME_BYTES_MAX, XmqError } from '@xmq/protocol'
import { parseJson } from './body.ts'
import { assertName, assertReliable, connectionOf, durationOf, type ClientFlags } from './client-flags.ts'
import { contentOf, encodeContent } from './content.ts'
import { EXIT, mistake, type ExitCode } from './exit.ts'
import { paint, untilStopped, writeLine, type Io } from './io.ts'
import { tellTrouble } from './trouble.ts'

/** Flags of `xmq sub`. */
export interface SubFlags extends ClientFlags {
  readonly count?: string
  readonly name?: string
  readonly reply?: string
  readonly json?: boolean
  readonly timeout: string
}

/** Deliveries that may wait for a slow reader of stdout before the queue stops sending. */
const PREFETCH_MAX = 99

/** `xmq sub`: prints what arrives, until Ctrl-C or `--count`. */
export async function sub(
  io: Io,
  { queue, topic }: { readonly queue: string; readonly topic: string },
  flags: SubFlags,
): Promise<ExitCode> {
  const timeoutMs = durationOf('--timeout', flags.timeout)
  const countMax = countOf(flags.count)
  const reply = replyOf(flags)
  const handling = handlingOf(flags)
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
    // What is not printed here is for others, and each time that it is handed out counts.
    prefetch: Math.min(PREFETCH_MAX, countMax - 1),
    on: {
      ...trouble.listeners,
      subscribed: () => trouble.forget(),
      failed({ kind, id, error }) {
        if (error.code !== 'overloaded') trouble.tell(`${kind} ${id}: ${error.message}`)
      },
    },
  })
  const handler = async (_: unknown, context: HandlerContext): Promise<readonly XmlElement[]> => {
    const { id, from, kind, raw, seq } = context
    if (count >= countMax) throw new XmqError('overloaded', 'This subscriber has seen what it wanted.')
    const { type, payload, text } = contentOf(raw)
    if (flags.output === 'json') {
      const delivery = seq === undefined ? {} : { seq, attempt: context.attempt }
      const line = { queue, topic: context.topic, kind, id, from, ...delivery, type, payload }
      io.stdout.write(`${JSON.stringify(line)}\n`)
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
  }
  worker.handle(defineTopic(topic, { encoding: 'xml' }), handler, handling)
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
  } catch (error) {
    throw explainName(XmqError.from(error), queue, flags)
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

/** The durable subscription to join, by its whole name: the one that `xmq dlq` and `xmq forget` take. */
function handlingOf({ name, mode }: SubFlags): HandleOptions {
  if (name === undefined) return {}
  assertName('--name', name, SUBSCRIPTION_NAME_BYTES_MAX)
  assertReliable('--name', mode)
  return { name }
}

/** What the queue says about a name, in the words of this command. */
function explainName(error: XmqError, queue: string, { name }: SubFlags): XmqError {
  if (name === undefined || (error.code !== 'conflict' && error.code !== 'bad-request')) return error
  const text =
    error.code === 'conflict'
      ? `--name: '${name}' at ${queue} is to another topic, and that never changes. Take another name, or end it, with all ` +
        `that waits in it: xmq forget ${queue} '${name}'`
      : `--name: ${error.message}`
  return new XmqError(error.code, text, { cause: error, condition: error.condition })
}
