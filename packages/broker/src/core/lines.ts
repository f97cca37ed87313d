/**
 * A line of waiting: where something can be claimed, and who could get it.
 *
 *     claimable (from the store) --> topics --by coverage--> (topics, groups) --> one claim at a time (dispatch.ts)
 *     sub, del, kind ------------> seats --by filters------> groups
 *
 * Topics that are covered by the same groups are claimed together, by grants for all the consumers in them: the n-th message
 * goes to the n-th grant, so whoever has a grant of a claim must be subscribed to every topic in it.
 *
 * The line of a durable subscription has one filter, fixed when it was made: to the store it is one line over all topics, and
 * here it has one topic, {@link WHOLE_LINE}.
 *
 * Invariants:
 * 1. `topics` has every topic in which something was told to be claimable and has not been found empty since (unless
 *    `isCut`: there are more, and the store is asked again for them).
 * 2. A topic is in `topics` of exactly one coverage: that of the groups that mean it.
 * 3. `exact` and `patterned` index the groups of `groups` by their filters.
 * 4. At most one claim is open, and none while the line is halted.
 */
import { isPattern } from '@xmq/protocol'
import { createDeadline, type Deadline } from './deadlines.ts'
import { compileFilter, type TopicMatcher } from './patterns.ts'
import type { Consumer, ConsumerKind, Queue } from './records.ts'
import { Group, Seat, updateSeat } from './seats.ts'

/** Most topics that are remembered as claimable; beyond them the store is asked when these are done. */
export const CLAIMABLE_TOPICS_MAX = 100_000
/** Most sets of groups with a backlog among which one with room is looked for. */
export const COVERAGES_LOOKED_AT = 16
/** The topic of a durable subscription's line. */
export const WHOLE_LINE = ''

/** Topics that the same groups mean. */
export interface Coverage {
  readonly key: string
  readonly groups: readonly Group[]
  readonly topics: Set<string>
}

/** See the top of this file. */
export class Line {
  readonly queue: Queue
  /** As the store calls it; `''` for the queue's own. */
  readonly id: string
  /** Of a durable subscription: its name, and the bare JID that owns it. */
  readonly name: string
  readonly owner: string
  /** Of a durable subscription: the topics that are published into it. */
  filter = ''
  matches: TopicMatcher = () => true
  /** Of a durable subscription: when somebody was seen there last. */
  touchedAt = 0
  /** Of a durable subscription: how often its end was asked for, and how often when the store last said that it is there. */
  forgets = 0
  forgetsHeard = 0
  /** A claim is open. */
  isClaiming = false
  /** The store did not answer; until `again` nothing is claimed. */
  isHalted = false
  readonly again: Deadline = createDeadline({ kind: 'claim-again', line: this })
  readonly trim: Deadline = createDeadline({ kind: 'trim-dead', line: this })
  /** How many grants the next claim has at most: it grows while claims are used up. */
  batch = 0
  /** More topics are claimable than were remembered. */
  isCut = false
  /** Somebody came whose topics may be among those that were not: they are to be read again. */
  isStale = false
  /** Topics that became claimable while a claim was open. */
  readonly fresh: Set<string> = new Set()
  readonly #topics: Map<string, Coverage> = new Map()
  readonly #coverages: Map<string, Coverage> = new Map()
  readonly #groups: Map<string, Group> = new Map()
  readonly #exact: Map<string, Set<Group>> = new Map()
  readonly #patterned: Map<Group, readonly TopicMatcher[]> = new Map()
  #turns = 0
  #groupIds = 0
  readonly #ids: Map<Group, number> = new Map()

  constructor(queue: Queue, id: string, owner: string, name: string) {
    this.queue = queue
    this.id = id
    this.owner = owner
    this.name = name
  }

  /** How many topics have something to claim. */
  get claimable(): number {
    return this.#topics.size
  }

  /** Whether a topic is known to have something to claim: a message to it has to wait its turn. */
  hasBacklog(topic: string): boolean {
    return this.isCut || this.#topics.has(topic)
  }

  /** Whether somebody with that kind is subscribed to a topic, whatever room there is. */
  covers(topic: string, kind?: ConsumerKind): boolean {
    for (const group of this.#groupsOf(topic)) if (kind === undefined || group.kind === kind) return true
    return false
  }

  /** Something has become claimable. */
  add(topic: string): void {
    const name = this.id === '' ? topic : WHOLE_LINE
    if (this.isClaiming) this.fresh.add(name)
    if (this.#topics.has(name)) return
    if (this.#topics.size >= CLAIMABLE_TOPICS_MAX) {
      this.isCut = true
      if (!this.#makeRoom(name)) return
    }
    this.#enter(name)
  }

  /** What somebody waits for goes before what nobody does. */
  #makeRoom(topic: string): boolean {
    const nobodys = this.#coverages.get('')
    if (nobodys === undefined || this.#groupsOf(topic).length === 0) return false
    for (const other of nobodys.topics) {
      this.remove(other)
      return true
    }
    return false
  }

  /** Nothing more is claimable in a topic. */
  remove(topic: string): void {
    const coverage = this.#topics.get(topic)
    if (coverage === undefined) return
    this.#topics.delete(topic)
    this.#leave(coverage, topic)
  }

  /** Topics that are to be claimed next, with somebody who has room; undefined when there is nothing to do. */
  next(): Coverage | undefined {
    for (const [key, coverage] of this.#coverages) {
      if (!coverage.groups.some((group) => group.ready.size > 0)) continue
      // The others come first the next time.
      this.#coverages.delete(key)
      this.#coverages.set(key, coverage)
      return coverage
    }
    return undefined
  }

  /** Those who may get a message that comes now to a topic; nobody while something waits that they could claim. */
  idle(topic: string): readonly Group[] {
    if (this.isCut || this.#topics.has(topic)) return []
    const groups = this.#groupsOf(topic)
    if (this.#topics.size === 0 || groups.length === 0) return groups
    // Asked for each publish: where much waits for many, a claim costs less than to look at all of them.
    if (this.#coverages.size > COVERAGES_LOOKED_AT) return []
    for (const coverage of this.#coverages.values()) if (coverage.groups.some(({ ready }) => ready.size > 0)) return []
    return groups
  }

  /** Puts topics behind the others of their coverage. */
  rotate(coverage: Coverage, topics: readonly string[]): void {
    if (coverage.topics.size === topics.length) return
    for (const topic of topics) if (coverage.topics.delete(topic)) coverage.topics.add(topic)
  }

  /** Gives a consumer its place: none, the one it has, or another one. @param filters its topics here, sorted */
  seat(consumer: Consumer, filters: readonly string[]): void {
    const known = consumer.seats.get(this)
    const key = filters.length === 0 ? undefined : `${consumer.kind}\n${filters.join('\n')}`
    if (known !== undefined && known.group.key === key) {
      updateSeat(known)
      return
    }
    if (known !== undefined) this.#unseat(known)
    if (key === undefined) return
    const seat = new Seat(consumer, this.#group(key, consumer.kind, filters), known?.turn ?? ++this.#turns)
    seat.group.seats++
    consumer.seats.set(this, seat)
    updateSeat(seat)
  }

  /** A consumer has had its turn. */
  took(seat: Seat): void {
    seat.turn = ++this.#turns
  }

  #unseat(seat: Seat): void {
    const { group } = seat
    if (seat.slot !== -1) group.ready.remove(seat)
    seat.consumer.seats.delete(this)
    if (--group.seats > 0) return
    this.#groups.delete(group.key)
    this.#ids.delete(group)
    for (const filter of group.filters) {
      const sharing = this.#exact.get(filter)
      sharing?.delete(group)
      if (sharing?.size === 0) this.#exact.delete(filter)
    }
    const hadPatterns = this.#patterned.delete(group)
    this.#recover(group, hadPatterns)
  }

  #group(key: string, kind: ConsumerKind, filters: readonly string[]): Group {
    const known = this.#groups.get(key)
    if (known !== undefined) return known
    const group = new Group(key, kind, filters)
    this.#groups.set(key, group)
    this.#ids.set(group, ++this.#groupIds)
    const matchers: TopicMatcher[] = []
    for (const filter of filters) {
      if (this.id === '' && kind === 'reliable' && isPattern(filter)) matchers.push(compileFilter(filter))
      else {
        const sharing = this.#exact.get(filter)
        if (sharing === undefined) this.#exact.set(filter, new Set([group]))
        else sharing.add(group)
      }
    }
    if (matchers.length > 0) this.#patterned.set(group, matchers)
    this.#recover(group, matchers.length > 0)
    if (this.isCut) this.isStale = true
    return group
  }

  /** A group came or went: the topics that it means belong elsewhere. */
  #recover(group: Group, hasPatterns: boolean): void {
    for (const topic of hasPatterns ? [...this.#topics.keys()] : group.filters) {
      const coverage = this.#topics.get(topic)
      if (coverage === undefined) continue
      this.#leave(coverage, topic)
      this.#enter(topic)
    }
  }

  #enter(topic: string): void {
    const groups = this.#groupsOf(topic)
    const key = groups
      .map((group) => this.#ids.get(group) as number)
      .sort((left, right) => left - right)
      .join(' ')
    let coverage = this.#coverages.get(key)
    if (coverage === undefined) {
      coverage = { key, groups, topics: new Set() }
      this.#coverages.set(key, coverage)
    }
    coverage.topics.add(topic)
    this.#topics.set(topic, coverage)
  }

  #leave(coverage: Coverage, topic: string): void {
    coverage.topics.delete(topic)
    if (coverage.topics.size === 0) this.#coverages.delete(coverage.key)
  }

  #groupsOf(topic: string): Group[] {
    const groups = [...(this.#exact.get(topic) ?? [])]
    for (const [group, matchers] of this.#patterned) {
      if (!groups.includes(group) && matchers.some((matches) => matches(topic))) groups.push(group)
    }
    return groups
  }
}
