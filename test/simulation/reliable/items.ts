/** What producers send, whoever they are: items with a payload that nobody else has. */
import type { Random } from '../random.ts'

export const TOPICS = ['a', 'b', 'c.d', 'c.e'] as const
export const FILTERS = ['a', 'a', 'b', 'c.*', 'c.>', '>', '>'] as const
const KEYS = [undefined, undefined, 'k', 'l'] as const

/** What a producer sends under one id. */
export interface SentItem {
  readonly queue: string
  readonly id: string
  /** Bare JID. */
  readonly sender: string
  readonly topic: string
  readonly key: string | undefined
  readonly priority: number
  readonly delayMs: number
  readonly ttlMs: number | undefined
  readonly payload: string
}

/** An item at random. @param id gives one that nobody had */
export function makeItem(random: Random, queue: string, sender: string, id: () => string): SentItem {
  const key = random.pick(KEYS)
  const isPlain = key !== undefined || random.chance(0.6)
  const delayMs = isPlain ? 0 : random.pick([0, 500, 3_000])
  return {
    queue,
    id: id(),
    sender,
    topic: random.pick(TOPICS),
    key,
    priority: isPlain ? 0 : random.int(10),
    delayMs,
    ttlMs: random.chance(0.15) ? delayMs + random.pick([200, 2_000, 10_000]) : undefined,
    payload: id(),
  }
}

/** What a worker subscribes to. */
export interface Wanted {
  readonly topic: string
  /** Of a durable subscription. */
  readonly name?: string | undefined
}
