/**
 * Who waits for messages in a line, and who of them is next.
 *
 * Consumers with the same topics and of the same kind are one group, each with a seat in it. A group's heap holds the seats of
 * those that have room, the next one first:
 *
 * | kind | first is |
 * |---|---|
 * | reliable | the least in flight per credit, scaled by load; of equal ones whoever waited longest |
 * | plain | whoever waited longest (mod_xmq's turns) |
 *
 * Owner: the line.
 *
 * Invariants:
 * 1. A seat is in its group's heap exactly while its consumer has room, and its `score` there is that of its consumer:
 *    {@link updateSeats} is called after each change of either.
 * 2. A group has at least one seat.
 */
import { Heap, type HeapMember } from './heap.ts'
import type { Consumer, ConsumerKind } from './records.ts'

/** A consumer's place in a line. */
export class Seat implements HeapMember {
  readonly consumer: Consumer
  readonly group: Group
  /** What it has in hand, per credit; larger waits longer. */
  score: number
  /** When it had its last turn. */
  turn: number
  slot = -1

  constructor(consumer: Consumer, group: Group, turn: number) {
    this.consumer = consumer
    this.group = group
    this.turn = turn
    this.score = scoreOf(consumer)
  }
}

/** The consumers of a line with the same topics and of the same kind. */
export class Group {
  readonly key: string
  readonly kind: ConsumerKind
  /** Topics, and patterns where the kind has them. */
  readonly filters: readonly string[]
  readonly ready: Heap<Seat>
  seats = 0

  constructor(key: string, kind: ConsumerKind, filters: readonly string[]) {
    this.key = key
    this.kind = kind
    this.filters = filters
    this.ready = new Heap(kind === 'plain' ? isEarlier : isIdler)
  }
}

/** Puts a consumer's seats where its room says. To be called when credit, load, doubt or what it holds was changed. */
export function updateSeats(consumer: Consumer): void {
  for (const seat of consumer.seats.values()) updateSeat(seat)
}

/** Puts one seat where its consumer's room says. */
export function updateSeat(seat: Seat): void {
  const { ready } = seat.group
  seat.score = scoreOf(seat.consumer)
  if (!seat.consumer.hasRoom) {
    if (seat.slot !== -1) ready.remove(seat)
  } else if (seat.slot === -1) ready.add(seat)
  else ready.settle(seat)
}

/** A seat took its turn for a message that was not there: it is where it was, and comes first among equals again. */
export function giveBackTurn(seat: Seat, turn: number): void {
  seat.turn = turn
  if (seat.slot !== -1) seat.group.ready.settle(seat)
}

/**
 * Whose turn it is among several groups: the idlest of the reliable consumers or the first of the plain ones, whoever of the two
 * has waited longer.
 */
export function nextSeat(groups: readonly Group[]): Seat | undefined {
  let plain: Seat | undefined
  let reliable: Seat | undefined
  for (const { kind, ready } of groups) {
    const { first } = ready
    if (first === undefined) continue
    if (kind === 'plain') plain = plain === undefined || isEarlier(first, plain) ? first : plain
    else reliable = reliable === undefined || isIdler(first, reliable) ? first : reliable
  }
  if (plain === undefined || reliable === undefined) return plain ?? reliable
  return isEarlier(plain, reliable) ? plain : reliable
}

/**
 * With one message more, so that of two idle ones the one with more to offer comes first. Load counts in steps of ten: a
 * difference of a few, which one slow tick of the worker makes, must not decide until the next renewal.
 */
function scoreOf({ kind, inFlight, credit, load }: Consumer): number {
  return kind === 'plain'
    ? 0
    : (inFlight + 1) / (Math.max(credit, 1) * (100 - Math.min(Math.round(load / 10) * 10, 90)))
}

function isEarlier(left: Seat, right: Seat): boolean {
  return left.turn < right.turn
}

function isIdler(left: Seat, right: Seat): boolean {
  return left.score < right.score || (left.score === right.score && left.turn < right.turn)
}
