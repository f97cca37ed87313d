/**
 * Many lanes as one, in the order of claims. The ranks come from the index alone, for all lanes at once: a row is read only once it is known to
 * be among the next, since those of other topics lie in other pages.
 *
 * Owns the places that were read of each lane and not taken yet.
 *
 * Invariant: every place of a lane up to its `last` was taken or is in `#places`; all of a lane that `isOver`.
 */

/** Where a claimable entry is. */
export interface LanePlace {
  readonly lane: number
  readonly rank: number
  readonly shelf: number
  readonly seq: number
}

/** What {@link LaneMerge} reads. */
export interface LaneReader {
  /** Up to `max` places of each lane behind a rank, those of a lane in order. */
  listPlaces(lanes: readonly (readonly [lane: number, after: number])[], max: number): LanePlace[]
}

interface Lane {
  readonly id: number
  /** The highest rank that was read; -1 before the first. */
  last: number
  isOver: boolean
}

/** Most places that are read of a lane at once. */
const PLACES_MAX = 128

/** See the top of this file. */
export class LaneMerge {
  readonly #lanes: ReadonlyMap<number, Lane>
  readonly #reader: LaneReader
  #page = 0
  /** By rank. */
  #places: LanePlace[] = []

  constructor(lanes: readonly number[], reader: LaneReader) {
    this.#lanes = new Map(lanes.map((id) => [id, { id, last: -1, isOver: false }]))
    this.#reader = reader
  }

  /** The next places of all lanes, fewer than `max` only where there are no more. */
  take(max: number): LanePlace[] {
    // What each would give if all gave the same, and one to see that the rest comes later: lanes that give more are asked again.
    this.#page = Math.min(Math.ceil(max / this.#lanes.size) + 1, PLACES_MAX)
    for (let behind = this.#behind(max); behind.length > 0; behind = this.#behind(max)) this.#read(behind)
    return this.#places.splice(0, max)
  }

  /** Lanes that may have something before the last of the next `max` places. */
  #behind(max: number): Lane[] {
    const last = this.#places[max - 1]?.rank ?? Number.POSITIVE_INFINITY
    return [...this.#lanes.values()].filter((lane) => !lane.isOver && lane.last < last)
  }

  #read(lanes: readonly Lane[]): void {
    const counts = new Map<number, number>()
    const pairs = lanes.map(({ id, last }) => [id, last] as const)
    for (const place of this.#reader.listPlaces(pairs, this.#page)) {
      counts.set(place.lane, (counts.get(place.lane) ?? 0) + 1)
      const lane = this.#lanes.get(place.lane) as Lane
      lane.last = Math.max(lane.last, place.rank)
      this.#places.push(place)
    }
    for (const lane of lanes) lane.isOver = (counts.get(lane.id) ?? 0) < this.#page
    this.#places.sort((left, right) => left.rank - right.rank)
    this.#page = Math.min(this.#page * 2, PLACES_MAX)
  }
}
