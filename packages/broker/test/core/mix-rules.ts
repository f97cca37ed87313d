/**
 * Plain and reliable clients on one queue: who gets what. The rules are a table of nine lines; the cases are every combination of
 *
 *     queue any, all  x  store memory, disk  x  publishers plain, reliable, both  x  every set of kinds of consumers  x  moment
 *
 * and what is expected of each case is worked out of the table alone. {@link play} does a case with whatever {@link Cast} it is given:
 * a core with a store, or clients of a real server.
 */
export type QueueType = 'any' | 'all'
export type Kept = 'memory' | 'disk'
export type Publisher = 'plain' | 'reliable'
/** `reliable` is what it is called in an `any` queue; in an `all` queue there are two of them. */
export type ConsumerKind = 'plain' | 'reliable' | 'ephemeral' | 'named'
/**
 * - `there`: they are subscribed while it is published, and settle, or answer pings
 * - `away`: they had been subscribed, left before, and come back afterwards, one after the other
 * - `dies`: they are subscribed, say nothing of what they got, and their sessions end, plain ones first; then others of the same
 *   accounts come, one after the other
 */
export type Moment = 'there' | 'away' | 'dies'

interface Rule {
  /** `turn`: one of all consumers gets a message, each in turn. `each`: this one gets every message. */
  readonly there: 'turn' | 'each'
  /** `kept`: it waits. `refused`: nobody is there, and the publisher is told so. `missed`: this consumer never gets it. */
  readonly away: 'kept' | 'refused' | 'missed'
  /** What such a consumer died with: `kept` comes again, `gone` does not. */
  readonly dies: 'kept' | 'gone'
}

type Line = readonly [QueueType, ConsumerKind, Kept | '*', Publisher | '*', Rule['there'], Rule['away'], Rule['dies']]

/** docs/protocol-reliable.md sections 5, 9 and 12, and `whenNobody`: a memory queue refuses plain messages when nobody is there. */
const RULES: readonly Line[] = [
  // queue, consumer,    kept,     published by, there,  away,      dies
  ['any', 'plain', 'memory', 'plain', 'turn', 'refused', 'gone'],
  ['any', 'plain', 'memory', 'reliable', 'turn', 'kept', 'gone'],
  ['any', 'plain', 'disk', '*', 'turn', 'kept', 'kept'],
  ['any', 'reliable', 'memory', 'plain', 'turn', 'refused', 'kept'],
  ['any', 'reliable', 'memory', 'reliable', 'turn', 'kept', 'kept'],
  ['any', 'reliable', 'disk', '*', 'turn', 'kept', 'kept'],
  ['all', 'plain', '*', '*', 'each', 'missed', 'gone'],
  ['all', 'ephemeral', '*', '*', 'each', 'missed', 'gone'],
  ['all', 'named', '*', '*', 'each', 'kept', 'kept'],
]

/** How a message looks to whom: its form, and under what name of the producer's. */
const FORMS: Readonly<Record<Publisher, Readonly<Record<'plain' | 'reliable', string>>>> = {
  plain: { plain: 'message chat', reliable: 'item in an envelope' },
  reliable: { plain: 'message normal', reliable: 'item' },
}

/** Messages of a case. Divides by how many consumers of an `any` queue there are. */
const MESSAGES = 8

/** One combination. */
export interface Mix {
  readonly queue: QueueType
  readonly kept: Kept
  readonly publishers: readonly Publisher[]
  readonly consumers: readonly ConsumerKind[]
  readonly moment: Moment
  readonly title: string
}

/** What became of the messages of a case; `got` as `NUMBER FORM`. */
export interface Outcome {
  /** Numbers of those that were refused with "No recipients found". */
  readonly refused: readonly number[]
  /** What the reliable publisher was told of each that it published; in an `all` queue how many durable subscriptions it has. */
  readonly confirmed: readonly string[]
  readonly got: Readonly<Partial<Record<ConsumerKind, readonly string[]>>>
}

const KINDS: Readonly<Record<QueueType, readonly ConsumerKind[]>> = {
  any: ['plain', 'reliable'],
  all: ['plain', 'ephemeral', 'named'],
}
const PUBLISHERS: readonly (readonly Publisher[])[] = [['plain'], ['reliable'], ['plain', 'reliable']]

/** Every combination. */
export const MIXES: readonly Mix[] = product()

function product(): Mix[] {
  const mixes: Mix[] = []
  for (const queue of ['any', 'all'] as const)
    for (const kept of ['memory', 'disk'] as const)
      for (const publishers of PUBLISHERS)
        for (const consumers of subsets(KINDS[queue]))
          for (const moment of ['there', 'away', 'dies'] as const) {
            const title = `${queue}, ${kept}: ${publishers.join(' and ')} to ${consumers.join(' and ')}, ${moment}`
            mixes.push({ queue, kept, publishers, consumers, moment, title })
          }
  return mixes
}

function subsets<T>(all: readonly T[]): T[][] {
  const sets: T[][] = [[]]
  for (const each of all) sets.push(...sets.map((set) => [...set, each]))
  return sets.slice(1)
}

/** The one line of the table for a message and a consumer. */
function ruleOf(mix: Mix, consumer: ConsumerKind, publisher: Publisher): Rule {
  const lines = RULES.filter(
    ([queue, kind, kept, by]) =>
      queue === mix.queue &&
      kind === consumer &&
      (kept === '*' || kept === mix.kept) &&
      (by === '*' || by === publisher),
  )
  const [line] = lines
  if (line === undefined || lines.length > 1) throw new Error(`${lines.length} lines for ${consumer} in ${mix.title}`)
  return { there: line[4], away: line[5], dies: line[6] }
}

const publisherOf = ({ publishers }: Mix, number: number): Publisher =>
  publishers[number % publishers.length] as Publisher

/** What is to become of the messages of a case, by the table. */
export function expectedOf(mix: Mix): Outcome {
  const { queue, consumers, moment, kept } = mix
  const got = new Map<ConsumerKind, string[]>(consumers.map((consumer) => [consumer, []]))
  const refused: number[] = []
  const confirmed: string[] = []
  // What waits for nobody in particular goes to whoever comes first.
  const first = consumers[0] as ConsumerKind
  for (let number = 0; number < MESSAGES; number++) {
    const publisher = publisherOf(mix, number)
    const give = (to: ConsumerKind): void => {
      got.get(to)?.push(`${number} ${FORMS[publisher][to === 'plain' ? 'plain' : 'reliable']}`)
    }
    if (publisher === 'reliable') {
      confirmed.push(queue === 'any' ? kept : `${kept}, ${consumers.includes('named') ? 1 : 0}`)
    }
    if (queue === 'all') {
      for (const consumer of consumers) {
        const { away, dies } = ruleOf(mix, consumer, publisher)
        if (moment === 'there' || (moment === 'away' ? away : dies) === 'kept') give(consumer)
      }
      continue
    }
    const taker = consumers[number % consumers.length] as ConsumerKind
    const { away, dies } = ruleOf(mix, taker, publisher)
    if (moment === 'there') give(taker)
    else if (moment === 'dies' && dies === 'kept') give(first)
    else if (moment === 'away' && away === 'kept') give(first)
    else if (moment === 'away' && away === 'refused') refused.push(number)
  }
  return { refused, confirmed, got: Object.fromEntries(got) }
}

/** Who plays a case. Each consumer has an account of its own, and each publisher. */
export interface Cast {
  /** Subscribes, in the session that it has, or in a new one after it died. */
  join(consumer: ConsumerKind): Promise<void>
  /** Unsubscribes. */
  leave(consumer: ConsumerKind): Promise<void>
  /** Its session ends, and says nothing any more. */
  die(consumer: ConsumerKind): Promise<void>
  /** Publishes a number. @returns what the publisher is told: `undefined`, `refused`, or the confirm */
  publish(publisher: Publisher, number: number): Promise<string | undefined>
  /** What it has got since the last look, which is `count` messages or more, and settles it unless it `isMute`. */
  got(consumer: ConsumerKind, count: number, isMute: boolean): Promise<string[]>
}

/** Does a case. */
export async function play(mix: Mix, cast: Cast): Promise<Outcome> {
  const { consumers, moment } = mix
  const expected = expectedOf(mix).got
  const got: Partial<Record<ConsumerKind, string[]>> = {}
  const take = async (consumer: ConsumerKind): Promise<void> => {
    got[consumer] = await cast.got(consumer, expected[consumer]?.length ?? 0, false)
  }
  for (const consumer of consumers) await cast.join(consumer)
  if (moment === 'away') for (const consumer of consumers) await cast.leave(consumer)
  const refused: number[] = []
  const confirmed: string[] = []
  for (let number = 0; number < MESSAGES; number++) {
    const told = await cast.publish(publisherOf(mix, number), number)
    if (told === 'refused') refused.push(number)
    else if (told !== undefined) confirmed.push(told)
  }
  if (moment === 'there') {
    for (const consumer of consumers) await take(consumer)
    return { refused, confirmed, got }
  }
  if (moment === 'dies') {
    for (const consumer of consumers) await cast.got(consumer, 1, true)
    for (const consumer of consumers) await cast.die(consumer)
  }
  for (const consumer of consumers) {
    await cast.join(consumer)
    await take(consumer)
  }
  return { refused, confirmed, got }
}
