/** `xmq dlq`: what was given up in a reliable queue, for its admins. */
import type { Client, DeadLetter, DeadLetterLine, DeadLetterSelection } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import { askQueue, type AskFlags, type AskOptions } from './ask-queue.ts'
import { contentOf } from './content.ts'
import { EXIT, mistake, type ExitCode } from './exit.ts'
import { paint, writeLine, type Io } from './io.ts'

/** Flags of every `xmq dlq` command. */
export interface DlqFlags extends AskFlags {
  readonly subscription?: string
  readonly owner?: string
}

/** Flags of `xmq dlq ls`. */
export interface DlqListFlags extends DlqFlags {
  readonly topic?: string
  readonly limit: string
  readonly after?: string
  readonly content?: boolean
}

/** Flags of `xmq dlq replay` and `xmq dlq purge`. */
export interface DlqOrderFlags extends DlqFlags {
  readonly topic?: string
  readonly all?: boolean
}

/** `xmq dlq ls`: one line a dead letter, by seq. */
export async function dlqList(io: Io, queue: string, flags: DlqListFlags): Promise<ExitCode> {
  const limit = wholeNumber('--limit', flags.limit, 1)
  const after = flags.after === undefined ? 0 : wholeNumber('--after', flags.after, 0)
  return await withClient(io, queue, flags, async (client, options) => {
    const { topic, content = false } = flags
    const pageSize = Math.min(limit, content ? 50 : 500)
    const query = { ...options, after, content, pageSize, ...(topic === undefined ? {} : { topic }) }
    let count = 0
    for await (const letter of client.deadLetters.list(query)) {
      if (flags.output === 'json') io.stdout.write(`${JSON.stringify(objectOf(queue, letter, content))}\n`)
      else writeLine(io, lineOf(letter, content))
      await io.stdout.drained?.()
      if (++count < limit) continue
      if (flags.output === 'text') note(io, `That are ${limit}. Go on with: --after ${letter.seq}`)
      break
    }
    if (count === 0 && flags.output === 'text') note(io, `${queue} has no dead letters here.`)
    return EXIT.ok
  })
}

/** `xmq dlq show`: one dead letter with its history and content. */
export async function dlqShow(
  io: Io,
  { queue, seq }: { readonly queue: string; readonly seq: string },
  flags: DlqFlags,
): Promise<ExitCode> {
  const number = wholeNumber('SEQ', seq, 1)
  return await withClient(io, queue, flags, async (client, options) => {
    const letter = await client.deadLetters.show(number, options)
    if (letter === undefined) throw notFound(queue, number)
    if (flags.output === 'json') io.stdout.write(`${JSON.stringify(objectOf(queue, letter, true))}\n`)
    else for (const line of pageOf(letter)) writeLine(io, line)
    return EXIT.ok
  })
}

/** `xmq dlq replay` and `xmq dlq purge`. */
export async function dlqOrder(
  io: Io,
  { action, queue, seqs }: { readonly action: 'replay' | 'purge'; readonly queue: string; readonly seqs: string[] },
  flags: DlqOrderFlags,
): Promise<ExitCode> {
  const selection = selectionOf(action, seqs, flags)
  return await withClient(io, queue, flags, async (client, options) => {
    const { done, failed } = await client.deadLetters[action](selection, options)
    if (flags.output === 'json') {
      const failures = failed.map(({ seq, error }) => ({ seq, error: { code: error.code, text: error.message } }))
      io.stdout.write(`${JSON.stringify({ queue, action, done, failed: failures })}\n`)
    } else {
      for (const { seq, error } of failed) note(io, `${seq}: ${error.message}`)
      writeLine(io, `${done} ${action === 'replay' ? 'replayed' : 'purged'}`)
    }
    return failed.length === 0 ? EXIT.ok : EXIT.failure
  })
}

function selectionOf(
  action: 'replay' | 'purge',
  seqs: readonly string[],
  { all = false, topic }: DlqOrderFlags,
): DeadLetterSelection {
  if (seqs.length > 0) {
    if (all || topic !== undefined) throw mistake('Give SEQs, or --all with or without --topic; not both.')
    return { seqs: seqs.map((seq) => wholeNumber('SEQ', seq, 1)) }
  }
  if (!all) throw mistake(`There is nothing to ${action}. Give SEQs as 'xmq dlq ls' lists them, or --all.`)
  return topic === undefined ? { all: true } : { all: true, topic }
}

async function withClient(
  io: Io,
  queue: string,
  flags: DlqFlags,
  act: (client: Client, options: DeadLetterLine & AskOptions) => Promise<ExitCode>,
): Promise<ExitCode> {
  const { subscription, owner } = flags
  if ((subscription === undefined) !== (owner === undefined)) {
    throw mistake('--subscription and --owner go together: a durable subscription is named by both.')
  }
  const line = subscription === undefined || owner === undefined ? {} : { subscription, owner }
  return await askQueue(io, queue, flags, async (client, options, jid) => {
    try {
      return await act(client, { ...line, ...options })
    } catch (error) {
      throw explainDenial(XmqError.from(error), queue, jid)
    }
  })
}

function explainDenial(error: XmqError, queue: string, jid: string): XmqError {
  if (error.code !== 'forbidden') return error
  const text = `${jid} is no admin of ${queue}. Add it to the queue's 'admins' in the broker's configuration.`
  return new XmqError('forbidden', text, { cause: error })
}

function notFound(queue: string, seq: number): XmqError {
  return new XmqError('not-found', `${seq} is no dead letter of ${queue}. 'xmq dlq ls ${queue}' lists them.`)
}

function wholeNumber(what: string, text: string, min: number): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(value) && value >= min) return value
  throw mistake(`${what}: '${text}' is no whole number of at least ${min}.`)
}

function note(io: Io, text: string): void {
  io.stderr.write(`${paint(io, 'stderr', 'yellow', 'xmq:')} ${text}\n`)
}

function lineOf(letter: DeadLetter, withContent: boolean): string {
  const { seq, reason = '?', topic, id = '-', failures } = letter
  const died = instant(letter.diedAt) ?? '-'
  const why = letter.history.at(-1)?.why.replaceAll(/\s+/g, ' ').slice(0, 80) ?? ''
  const content = withContent && letter.payload !== undefined ? `  ${contentOf(letter.payload).text}` : ''
  return `${seq}  ${died}  ${reason}  ${failures} failures  ${topic}  ${id}  ${why}${content}`.trimEnd()
}

function pageOf(letter: DeadLetter): string[] {
  const rows: [string, string | number | undefined][] = [
    ['seq', letter.seq],
    ['id', letter.id],
    ['topic', letter.topic],
    ['from', letter.from],
    ['key', letter.key],
    ['priority', letter.priority],
    ['published', instant(letter.publishedAt)],
    ['died', instant(letter.diedAt)],
    ['reason', letter.reason],
    ['failures', letter.failures],
    ['deliveries', letter.deliveries],
    ['bytes', letter.bytes],
    ...[...letter.headers].map(([name, value]): [string, string] => [`header ${name}`, value]),
    ...letter.history.map((entry): [string, string] => ['history', historyOf(entry)]),
  ]
  const lines = rows.flatMap(([name, value]) => (value === undefined ? [] : [`${name.padEnd(11)} ${value}`]))
  const content = letter.payload === undefined ? undefined : contentOf(letter.payload)
  return content === undefined
    ? [...lines, 'content     not there: damaged, or too large for a stanza']
    : [...lines, '', content.text]
}

function historyOf({ at, worker, attempt, why }: DeadLetter['history'][number]): string {
  const words = [instant(at), attempt === undefined ? undefined : `attempt ${attempt}`, worker, why]
  return words.filter((word) => word !== undefined).join('  ')
}

function objectOf(queue: string, letter: DeadLetter, withContent: boolean): object {
  const { payload, headers, history, publishedAt, diedAt, ...rest } = letter
  const content = withContent && payload !== undefined ? contentOf(payload) : undefined
  return {
    queue,
    ...rest,
    publishedAt: instant(publishedAt),
    diedAt: instant(diedAt),
    history: history.map(({ at, worker, attempt, why }) => ({ at: instant(at), worker, attempt, why })),
    ...(withContent ? { headers: Object.fromEntries(headers) } : {}),
    ...(content === undefined ? {} : { type: content.type, payload: content.payload }),
  }
}

function instant(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : new Date(ms).toISOString()
}
