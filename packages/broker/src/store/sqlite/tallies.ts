/**
 * Queues, lines and topics: their ids and counts.
 *
 * Owns what is cached of the tables `queues`, `lines`, `topics` and `numbers`. Counts change in memory while a transaction runs
 * and are written by {@link Tallies.flush} before it commits, once for each line and topic that it touched.
 *
 * Invariants:
 * 1. Between transactions the cache says what the file says.
 * 2. After a rollback the cache is empty and read anew: {@link Tallies.load}.
 * 3. Memory grows with lines and at most {@link TOPICS_CACHED_MAX} topics, never with messages.
 * 4. A number is drawn only below what the file says is reserved, so none is ever drawn twice.
 */
import type { Counts } from '../counts.ts'
import { BLOCKED, CLAIMABLE, DEAD, DELAYED, GONE, LEASED, type Row } from './row.ts'
import { ADDED_AT_ONCE, type Statements, type Value } from './statements.ts'

/** Counts of a line or topic, with what is needed to save them. */
export interface Tally {
  readonly id: number
  readonly counts: Counts
  isDirty: boolean
}

export interface LineTally extends Tally {
  readonly queue: QueueTally
  readonly subscription: string
  /** Its topics that are cached, by name. */
  readonly topics: Map<string, TopicTally>
  /** Deleted; its entries are being removed. */
  isGone: boolean
  /** READY entries that were published without `dead-letter-oldest`. */
  undroppable: number
}

export interface TopicTally extends Tally {
  readonly line: LineTally
  readonly name: string
}

export interface QueueTally {
  readonly id: number
  readonly address: string
  /** By subscription. */
  readonly lines: Map<string, LineTally>
  /** Deduplication records in `ending`. */
  endings: number
  /** No record ends earlier. */
  firstEndingAt: number
  isDirty: boolean
}

const TOPICS_CACHED_MAX = 100_000
/** Topics without entries that stay in the file, since they tend to come back. */
const IDLE_TOPICS_MAX = 1024
/** Ids of lines: what is left of an entry's id beside its seq. */
const LINES_MAX = 2 ** 19 - 2
/** Numbers that one write reserves. */
const NUMBERS_RESERVED = 10_000

const SAVERS = { 64: 'saveTopics64', 8: 'saveTopics8', 1: 'saveTopics1' } as const

const bytesOfText = (text: string) => Buffer.from(text)

function countsOf(values: readonly Value[], from: number): Counts {
  const [ready, claimable, delayed, leased, dead, bytes, deadBytes] = values.slice(from) as number[]
  return { ready, claimable, delayed, leased, dead, bytes, deadBytes } as Counts
}

function valuesOf({ counts, id }: Tally): Value[] {
  const { ready, claimable, delayed, leased, dead, bytes, deadBytes } = counts
  return [ready, claimable, delayed, leased, dead, bytes, deadBytes, id]
}

const isEmpty = ({ counts }: Tally) => counts.ready + counts.delayed + counts.leased + counts.dead === 0

/** See the top of this file. */
export class Tallies {
  readonly #statements: Statements
  readonly #queues = new Map<string, QueueTally>()
  readonly #linesById = new Map<number, LineTally>()
  readonly #topicsById = new Map<number, TopicTally>()
  readonly #idleTopics = new Set<TopicTally>()
  #dirty: Tally[] = []
  #dirtyQueues: QueueTally[] = []
  #changedLines = new Set<LineTally>()
  #lastNumber = 0
  #lastLine = 0
  #reserved = 0

  constructor(statements: Statements) {
    this.#statements = statements
    this.load()
  }

  /** Forgets everything and reads the lines. Numbers go on above all that may have been drawn. */
  load(): void {
    for (const map of [this.#queues, this.#linesById, this.#topicsById, this.#idleTopics]) map.clear()
    this.#dirty = []
    this.#dirtyQueues = []
    this.#changedLines.clear()
    const reserved = Number(this.#statements.readNumbers.get([])?.[0])
    this.#lastNumber = Math.max(this.#lastNumber, reserved)
    this.#reserved = reserved
    for (const values of this.#statements.listLines.all([])) {
      const [id, address, subscription, gone, undroppable] = values as [number, Buffer, Buffer, number, number]
      const queue = this.queue(address.toString(), true)
      if (queue === undefined) continue
      this.#keepLine(queue, id, subscription.toString(), gone === 1, countsOf(values, 5)).undroppable = undroppable
    }
  }

  get lines(): Iterable<LineTally> {
    return this.#linesById.values()
  }

  /** The next number of the store, for seqs and order numbers. */
  nextNumber(): number {
    this.#lastNumber += 1
    if (this.#lastNumber > this.#reserved) {
      this.#reserved = this.#lastNumber + NUMBERS_RESERVED
      this.#statements.reserveNumbers.run([this.#reserved])
    }
    return this.#lastNumber
  }

  queue(address: string, isKnown = false): QueueTally | undefined {
    const cached = this.#queues.get(address)
    if (cached !== undefined) return cached
    const found = this.#statements.findQueue.get([bytesOfText(address)])
    if (found === undefined && isKnown) return undefined
    const id = Number((found ?? this.#statements.addQueue.get([bytesOfText(address)]))?.[0])
    const endings = Number(found?.[1] ?? 0)
    const queue: QueueTally = { id, address, lines: new Map(), endings, firstEndingAt: 0, isDirty: false }
    this.#queues.set(address, queue)
    return queue
  }

  /** The queue, made when it is not there, with its own line. */
  queueToWrite(address: string, now: number): QueueTally {
    const queue = this.queue(address) as QueueTally
    if (!queue.lines.has('')) this.addLine(queue, '', '', now)
    return queue
  }

  setEndings(queue: QueueTally, endings: number): void {
    queue.endings = endings
    if (!queue.isDirty) this.#dirtyQueues.push(queue)
    queue.isDirty = true
  }

  line(address: string, subscription: string): LineTally | undefined {
    return this.queue(address, true)?.lines.get(subscription)
  }

  lineById(id: number): LineTally {
    return this.#linesById.get(id) as LineTally
  }

  addLine(queue: QueueTally, subscription: string, meta: string, now: number): LineTally {
    const id = this.#freeLine()
    this.#statements.addLine.run([id, queue.id, bytesOfText(subscription), bytesOfText(meta), now, now])
    return this.#keepLine(queue, id, subscription, false, countsOf([0, 0, 0, 0, 0, 0, 0], 0))
  }

  /** An id that no line has: one that none ever had, as long as there are such. */
  #freeLine(): number {
    do this.#lastLine = (this.#lastLine % LINES_MAX) + 1
    while (this.#linesById.has(this.#lastLine))
    return this.#lastLine
  }

  #keepLine(queue: QueueTally, id: number, subscription: string, isGone: boolean, counts: Counts): LineTally {
    const line: LineTally = {
      id,
      queue,
      subscription,
      topics: new Map(),
      isGone,
      counts,
      undroppable: 0,
      isDirty: false,
    }
    this.#linesById.set(id, line)
    this.#lastLine = Math.max(this.#lastLine, id)
    if (!isGone) queue.lines.set(subscription, line)
    return line
  }

  /** Frees the name of a line; its entries are still to be removed. */
  loseLine(line: LineTally): void {
    line.isGone = true
    line.queue.lines.delete(line.subscription)
    this.#statements.loseLine.run([line.id])
  }

  /** Removes a lost line that has no entries left. */
  removeLine(line: LineTally): void {
    for (const topic of this.#topicsById.values()) if (topic.line === line) this.#forgetTopic(topic)
    this.#statements.removeTopics.run([line.id])
    this.#linesById.delete(line.id)
    this.#statements.removeLine.run([line.id])
  }

  /** A topic that is there. */
  topic(line: LineTally, name: string): TopicTally | undefined {
    const cached = line.topics.get(name)
    if (cached !== undefined) return cached
    const found = this.#statements.findTopic.get([line.id, bytesOfText(name)])
    return found === undefined ? undefined : this.#keepTopic(line, Number(found[0]), name, countsOf(found, 1))
  }

  topicToWrite(line: LineTally, name: string): TopicTally {
    const topic = this.topic(line, name)
    if (topic !== undefined) return topic
    const id = Number(this.#statements.addTopic.get([line.id, bytesOfText(name)])?.[0])
    return this.#keepTopic(line, id, name, countsOf([0, 0, 0, 0, 0, 0, 0], 0))
  }

  topicById(id: number): TopicTally {
    const cached = this.#topicsById.get(id)
    if (cached !== undefined) return cached
    const [line, name, ...counts] = this.#statements.readTopic.get([id]) as [number, Buffer, ...number[]]
    return this.#keepTopic(this.lineById(line), id, name.toString(), countsOf(counts, 0))
  }

  #keepTopic(line: LineTally, id: number, name: string, counts: Counts): TopicTally {
    const topic: TopicTally = { id, line, name, counts, isDirty: false }
    this.#topicsById.set(id, topic)
    line.topics.set(name, topic)
    return topic
  }

  /** Counts an entry in (`sign` 1) or out (-1), in the state that it is in. */
  count(row: Row, sign: 1 | -1): void {
    if (row.state === GONE) return
    const topic = this.topicById(row.topic)
    if (!row.isDroppable && row.state <= BLOCKED) topic.line.undroppable += sign
    for (const tally of [topic, topic.line]) {
      const { counts } = tally
      if (row.state === CLAIMABLE || row.state === BLOCKED) counts.ready += sign
      if (row.state === CLAIMABLE) counts.claimable += sign
      if (row.state === DELAYED) counts.delayed += sign
      if (row.state === LEASED) counts.leased += sign
      if (row.state === DEAD) counts.dead += sign
      counts[row.state === DEAD ? 'deadBytes' : 'bytes'] += sign * row.bytes
      this.#touch(tally)
    }
  }

  /** Counts a BLOCKED entry of a topic as claimable. */
  countOffer(id: number): void {
    const topic = this.topicById(id)
    for (const tally of [topic, topic.line]) {
      tally.counts.claimable += 1
      this.#touch(tally)
    }
  }

  #touch(tally: TopicTally | LineTally): void {
    if (!tally.isDirty) this.#dirty.push(tally)
    tally.isDirty = true
  }

  /** Writes what changed. */
  flush(): void {
    const topics: TopicTally[] = []
    for (const tally of this.#dirty) {
      tally.isDirty = false
      if ('line' in tally) topics.push(tally as TopicTally)
      else {
        this.#statements.saveLine.run([(tally as LineTally).undroppable, ...valuesOf(tally)])
        this.#changedLines.add(tally as LineTally)
      }
    }
    this.#dirty = []
    this.#flushTopics(topics)
    for (const queue of this.#dirtyQueues) {
      queue.isDirty = false
      this.#statements.saveQueue.run([queue.endings, queue.id])
    }
    this.#dirtyQueues = []
    if (this.#idleTopics.size > IDLE_TOPICS_MAX) this.#removeIdleTopics()
  }

  /** The lines whose counts were written since the last call. */
  takeChanged(): LineTally[] {
    const lines = [...this.#changedLines]
    this.#changedLines.clear()
    return lines
  }

  /** Lets go of cached topics when they are too many. Only between transactions. */
  trim(): void {
    if (this.#topicsById.size <= TOPICS_CACHED_MAX) return
    this.#topicsById.clear()
    for (const line of this.#linesById.values()) line.topics.clear()
    this.#idleTopics.clear()
  }

  #flushTopics(topics: readonly TopicTally[]): void {
    let place = 0
    for (const count of ADDED_AT_ONCE) {
      for (; topics.length - place >= count; place += count) {
        const values: Value[] = []
        for (let n = 0; n < count; n++) values.push(...valuesOf(topics[place + n] as TopicTally))
        this.#statements[SAVERS[count]].run(values)
      }
    }
    for (const topic of topics) {
      if (isEmpty(topic)) this.#idleTopics.add(topic)
      else this.#idleTopics.delete(topic)
    }
  }

  #removeIdleTopics(): void {
    for (const topic of this.#idleTopics) {
      this.#statements.removeTopic.run([topic.id])
      this.#forgetTopic(topic)
    }
    this.#idleTopics.clear()
  }

  #forgetTopic(topic: TopicTally): void {
    this.#topicsById.delete(topic.id)
    topic.line.topics.delete(topic.name)
    this.#idleTopics.delete(topic)
  }
}
