/**
 * Requests between plain and reliable clients: what a worker gets, and what becomes of the request. docs/protocol-reliable.md 8. Every
 * combination of
 *
 *     queue any, all  x  store memory, disk  x  three kinds of askers  x  every set of workers  x  six ends
 */
import type { Kept, Publisher as Kind, QueueType } from './mix-rules.ts'

export type Asker = 'plain, flat' | 'plain, nested' | 'reliable'

const CALL = { deadline: "deadline='2026-01-02T03:04:35.678Z' progress='true'" } as const

/** What an asker writes. The flat form is one that Prosody refuses by itself. */
export function askedBy(asker: Asker, topic: string): string {
  const ask = "<ask xmlns='urn:x'/>"
  if (asker === 'plain, flat') return `${ask}<xmq xmlns='xmq:topic' topic='${topic}'/>`
  const call = asker === 'reliable' ? `<call xmlns='xmq:queue:1' ${CALL.deadline}/>` : ''
  return `<xmq xmlns='xmq:topic' topic='${topic}'>${ask}${call}</xmq>`
}

/**
 * | asker | a plain worker gets | a reliable worker gets |
 * |---|---|---|
 * | flat | the flat form, which does not say who asks | the nested form, and who asks |
 * | nested | the nested form, and who asks | the same |
 * | reliable | the same, and the whole `<call/>` | the same |
 */
export function gottenBy(worker: Kind, asker: Asker, topic: string, askerJid: string): string {
  if (asker === 'plain, flat' && worker === 'plain') return askedBy(asker, topic)
  const call = asker === 'reliable' ? `${CALL.deadline} ` : ''
  return `<xmq xmlns='xmq:topic' topic='${topic}'><ask xmlns='urn:x'/><call xmlns='xmq:queue:1' ${call}from='${askerJid}'/></xmq>`
}

export type End =
  | 'is answered'
  | 'is answered with an error'
  | 'bounces'
  | 'dies with its worker'
  | 'is cancelled'
  | 'takes too long'

interface Ending {
  readonly end: End
  /** What the asker hears: a result, the worker's own error, or the broker's code. `next`: what the next worker answers. */
  readonly hears: 'result' | 'undefined-condition' | 'worker-gone' | 'timeout' | 'next'
  /** Whether a reliable worker is told that nobody waits any more; a plain one never is. */
  readonly isTold: boolean
}

const ENDINGS: readonly Ending[] = [
  { end: 'is answered', hears: 'result', isTold: false },
  { end: 'is answered with an error', hears: 'undefined-condition', isTold: false },
  { end: 'bounces', hears: 'next', isTold: false },
  { end: 'dies with its worker', hears: 'worker-gone', isTold: false },
  { end: 'is cancelled', hears: 'timeout', isTold: true },
  { end: 'takes too long', hears: 'timeout', isTold: true },
]

/** One combination. With nobody there the asker hears `no-recipients`, whatever the end. */
export interface RequestMix extends Ending {
  readonly queue: QueueType
  readonly kept: Kept
  readonly asker: Asker
  readonly workers: readonly Kind[]
  readonly title: string
}

/** Every combination. */
export const REQUEST_MIXES: readonly RequestMix[] = product()

function product(): RequestMix[] {
  const mixes: RequestMix[] = []
  for (const queue of ['any', 'all'] as const)
    for (const kept of ['memory', 'disk'] as const)
      for (const asker of ['plain, flat', 'plain, nested', 'reliable'] as const)
        for (const workers of [[], ['plain'], ['reliable'], ['plain', 'reliable']] as const)
          for (const ending of ENDINGS) {
            const who = workers.length === 0 ? 'nobody' : workers.join(' and ')
            const title = `${queue}, ${kept}: from a ${asker} asker to ${who}, ${ending.end}`
            mixes.push({ ...ending, queue, kept, asker, workers, title })
          }
  return mixes
}
