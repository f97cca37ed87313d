/**
 * The entries of the sqlite store, as a transaction sees them: what it changed is kept here and written many at a time.
 *
 * Owns what was changed and is not written yet. Everything that reads entries goes through here, and what a statement would have to see
 * is written first.
 *
 * ```
 *   add, save, lease, remove ──> changes ──flush──> a few statements of many rows
 *   get ──> changes, else the lease, else the file         list ──> flush, then the file
 * ```
 *
 * Invariants:
 * 1. A row of the file in state LEASED has a lease in memory (leases.ts), whose copy says what the row does not.
 * 2. No list statement runs while there are changes; those that look at one chain may, while nothing in that chain changed. An offer
 *    changes no chain.
 * 3. Between transactions there are no changes. Maps are made anew rather than cleared: see places.ts.
 */
import type { LanePlace } from './lane-merge.ts'
import type { Leases } from './leases.ts'
import { Places } from './places.ts'
import {
  changedValues,
  copyOf,
  CLAIMABLE,
  LEASED,
  isPlain,
  ordOf,
  pushPlainValues,
  pushValues,
  readRow,
  type Row,
  rowOf,
} from './row.ts'
import { ADDED_AT_ONCE, type Parameter, type StatementName, type Statements, type Value } from './statements.ts'

interface Change {
  readonly kind: 'add' | 'save' | 'lease' | 'remove'
  readonly row: Row
}

/** Statements that list whole entries. */
type ListName = Extract<StatementName, `list${string}`>

const ADDERS = { 64: 'addEntries64', 8: 'addEntries8', 1: 'addEntries1' } as const
const PLAIN_ADDERS = { 64: 'addPlain64', 8: 'addPlain8', 1: 'addPlain1' } as const

/** See the top of this file. */
export class Rows {
  readonly #statements: Statements
  readonly #leases: Leases
  readonly #changes = new Places<Change>()
  /** BLOCKED entries that became claimable: the file alone has the rest of them. */
  readonly #offered = new Places<true>()
  /** Chains in which something changed. True: an entry was added to it, and none left it, so it has a first. */
  #chains = new Map<string, boolean>()

  constructor(statements: Statements, leases: Leases) {
    this.#statements = statements
    this.#leases = leases
  }

  /** An entry, to be changed and saved; undefined when there is none. */
  get(line: number, seq: number): Row | undefined {
    const lease = this.#leases.get(line, seq)
    if (lease !== undefined) return copyOf(lease.row)
    const change = this.#changes.get(line, seq)
    if (change !== undefined) return change.kind === 'remove' ? undefined : change.row
    return this.read(line, seq)
  }

  /** An entry as the file has it, but for an offer that is not written yet. */
  read(line: number, seq: number): Row | undefined {
    const values = this.#statements.readEntry.get([line, seq])
    if (values === undefined) return undefined
    const row = readRow(values)
    if (this.#offered.get(line, seq) === true) row.state = CLAIMABLE
    return row
  }

  has(line: number, seq: number): boolean {
    const change = this.#changes.get(line, seq)
    if (change !== undefined) return change.kind !== 'remove'
    return this.#leases.get(line, seq) !== undefined || this.#statements.hasEntry.get([line, seq]) !== undefined
  }

  /** The message of an entry. */
  dataOf(row: Row): Buffer {
    return (
      row.data ??
      this.#changes.get(row.line, row.seq)?.row.data ??
      this.read(row.line, row.seq)?.data ??
      Buffer.alloc(0)
    )
  }

  add(row: Row): void {
    this.#changes.set(row.line, row.seq, { kind: 'add', row })
  }

  save(row: Row): void {
    this.#change('save', row)
  }

  /** Saves a row of which only the state changed, to LEASED. */
  lease(row: Row): void {
    this.#change('lease', row)
  }

  remove(row: Row): void {
    if (this.#changes.get(row.line, row.seq)?.kind === 'add') this.#changes.delete(row.line, row.seq)
    else this.#changes.set(row.line, row.seq, { kind: 'remove', row })
    this.#touchChain(row, false)
  }

  /** Whether the chain has an entry. An entry that is to be its last is added next. */
  joinChain(topic: number, key: string): boolean {
    const chain = `${topic} ${key}`
    const known = this.#chains.get(chain)
    if (known === false) this.flush()
    const isHeld = known === true || this.#statements.firstOfChain.get([topic, Buffer.from(key)]) !== undefined
    this.#chains.set(chain, true)
    return isHeld
  }

  /** The seq of what comes after an entry in the chain of its key: BLOCKED. To be asked before that entry leaves it. */
  nextOfChain({ topic, key, rank }: Row): number | undefined {
    if (key === undefined) return undefined
    if (this.#chains.has(`${topic} ${key}`)) this.flush()
    const found = this.#statements.nextOfChain.get([topic, Buffer.from(key), ordOf(rank)])
    return found === undefined ? undefined : Number(found[0])
  }

  /** Makes a BLOCKED entry claimable, without reading it. */
  offer(line: number, seq: number): void {
    this.#offered.set(line, seq, true)
  }

  list(name: ListName, values: readonly Value[]): Row[] {
    this.flush()
    return this.#statements[name].all(values).map((columns) => this.#withLease(readRow(columns)))
  }

  /** A row as its lease, if it has one, says that it is. */
  #withLease(row: Row): Row {
    const lease = row.state === LEASED ? this.#leases.get(row.line, row.seq) : undefined
    return lease === undefined ? row : { ...lease.row, data: row.data }
  }

  /** The first claimable entries of a lane behind a rank. */
  listClaimable(lane: number, after: number, max: number): Row[] {
    return this.#listPacked('listClaimable', [lane, after, max])
  }

  /** Claimable entries of a line, by rank. */
  listRanked(line: number, places: readonly LanePlace[]): Row[] {
    if (places.length === 0) return []
    return this.#listPacked('listRanked', [line, JSON.stringify(places.map(({ seq }) => seq))]).sort(
      (left, right) => left.rank - right.rank,
    )
  }

  listPlaces(lanes: readonly (readonly [lane: number, after: number])[], max: number): LanePlace[] {
    this.flush()
    const [found] = this.#statements.listPlaces.get([JSON.stringify(lanes), max]) as readonly (Buffer | null)[]
    if (found === null || found === undefined) return []
    return found
      .toString('latin1')
      .split(';')
      .map((text) => {
        const [lane, rank, seq] = text.split(',')
        return { lane: Number(lane), rank: Number(rank), seq: Number(seq) }
      })
  }

  #listPacked(name: 'listClaimable' | 'listRanked', parameters: readonly Parameter[]): Row[] {
    this.flush()
    const values = this.#statements[name].get(parameters) as readonly (Buffer | null)[]
    const [columns, rests, data] = values as [Buffer | null, Buffer | null, Buffer | null]
    if (columns === null || data === null) return []
    let restAt = 0
    let dataAt = 0
    return columns
      .toString('latin1')
      .split(';')
      .map((text) => {
        const [line, seq, topic, lane, rank, expiresAt, isDroppable, key, restBytes, dataBytes] = text.split(',')
        const rest = restBytes === '0' ? null : (rests as Buffer).subarray(restAt, restAt + Number(restBytes))
        restAt += Number(restBytes)
        dataAt += Number(dataBytes)
        return rowOf({
          line: Number(line),
          seq: Number(seq),
          topic: Number(topic),
          lane: Number(lane),
          state: CLAIMABLE,
          rank: Number(rank),
          at: 0,
          expiresAt: expiresAt === '' ? null : Number(expiresAt),
          isDroppable: isDroppable === '1',
          key: key === '-' ? undefined : Buffer.from(String(key), 'hex').toString(),
          rest,
          data: data.subarray(dataAt - Number(dataBytes), dataAt),
        })
      })
  }

  /** Writes what changed. */
  flush(): void {
    // First: what else became of an entry since is said by its change.
    if (this.#offered.size > 0) {
      for (const [line, seqs] of this.#offered.lines())
        this.#statements.offerEntries.run([line, JSON.stringify([...seqs.keys()])])
      this.#offered.clear()
    }
    if (this.#changes.size > 0) {
      for (const [line, changes] of this.#changes.lines()) this.#write(line, changes.values())
      this.#changes.clear()
    }
    this.#chains = new Map()
  }

  /** Forgets what was not written. */
  reset(): void {
    this.#changes.clear()
    this.#offered.clear()
    this.#chains = new Map()
  }

  #change(kind: 'save' | 'lease', row: Row): void {
    const before = this.#changes.get(row.line, row.seq)
    const isKept = before?.kind === 'add' || before?.kind === 'save'
    // One that was leased from the start has its message only where it was added.
    if (before?.kind === 'add') row.data ??= before.row.data
    this.#changes.set(row.line, row.seq, { kind: isKept ? before.kind : kind, row })
    this.#touchChain(row, false)
  }

  #touchChain({ topic, key }: Row, isHeld: boolean): void {
    if (key !== undefined) this.#chains.set(`${topic} ${key}`, isHeld)
  }

  #write(line: number, changes: Iterable<Change>): void {
    const added: Row[] = []
    const leased: number[] = []
    const removed: number[] = []
    for (const { kind, row } of changes) {
      if (kind === 'add') added.push(row)
      else if (kind === 'lease') leased.push(row.seq)
      else if (kind === 'remove') removed.push(row.seq)
      else this.#statements.saveEntry.run(changedValues(row))
    }
    if (removed.length > 0) this.#statements.removeEntries.run([line, JSON.stringify(removed)])
    if (leased.length > 0) this.#statements.leaseEntries.run([line, JSON.stringify(leased)])
    this.#add(
      ADDERS,
      added.filter((row) => !isPlain(row)),
      [],
      pushValues,
    )
    for (const state of [CLAIMABLE, LEASED]) {
      const plain = added.filter((row) => row.state === state && isPlain(row))
      if (plain.length === 0) continue
      const lane = plain[0]?.lane as number
      this.#add(PLAIN_ADDERS, plain, [line, Math.min(lane, 0), state], pushPlainValues)
    }
  }

  #add(
    adders: typeof ADDERS | typeof PLAIN_ADDERS,
    rows: readonly Row[],
    first: readonly number[],
    push: (values: Value[], row: Row) => void,
  ): void {
    let place = 0
    for (const count of ADDED_AT_ONCE) {
      for (; rows.length - place >= count; place += count) {
        const values: Value[] = [...first]
        for (let n = 0; n < count; n++) push(values, rows[place + n] as Row)
        this.#statements[adders[count]].run(values)
      }
    }
  }
}
