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
 * 4. `#shelves` may name a shelf on which nothing lies (any more), but lacks none on which something does.
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
import { lineOf, otherShelves } from './shelf.ts'
import { ADDED_AT_ONCE, type Parameter, type Statements, type Value } from './statements.ts'

interface Change {
  readonly kind: 'add' | 'save' | 'lease' | 'remove'
  readonly row: Row
}

/** Where an entry is in the file. */
export interface EntryPlace {
  readonly shelf: number
  readonly seq: number
}

/** Statements that list whole entries in the order of a time. */
type ListName = 'listDue' | 'listExpired' | 'listByDeath'
/** Those that list the entries of one shelf. */
type ShelfListName = 'listEntries' | 'listDelayed' | 'listDead' | 'listDroppable' | 'listUndroppable' | 'listDeadAt'

const bySeq = (left: Row, right: Row) => left.seq - right.seq
/** The fewest rows that are read of a shelf at once, where a page takes from several. */
const SHELF_READ_MIN = 16

const ADDERS = { 64: 'addEntries64', 8: 'addEntries8', 1: 'addEntries1' } as const
const PLAIN_ADDERS = { 64: 'addPlain64', 8: 'addPlain8', 1: 'addPlain1' } as const

/** See the top of this file. */
export class Rows {
  readonly #statements: Statements
  readonly #leases: Leases
  readonly #changes = new Places<Change>()
  /** BLOCKED entries that became claimable, by shelf: the file alone has the rest of them. */
  readonly #offered = new Places<true>()
  /** Shelves beside the first that something may lie on, of lines where that was asked: seen in the file, or used since. */
  readonly #shelves = new Map<number, number[]>()
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
    const usual = this.#statements.readEntry.get([line, seq])
    if (usual !== undefined) return this.#readOffered(usual)
    const shelves = this.#shelvesOf(line)
    const other = shelves.length > 0 ? this.#statements.findEntry.get([seq, JSON.stringify(shelves)]) : undefined
    return other === undefined ? undefined : this.#readOffered(other)
  }

  #readAt({ shelf, seq }: EntryPlace): Row | undefined {
    const values = this.#statements.readEntry.get([shelf, seq])
    return values === undefined ? undefined : this.#readOffered(values)
  }

  #readOffered(values: readonly Value[]): Row {
    const row = readRow(values)
    if (this.#offered.get(row.shelf, row.seq) === true) row.state = CLAIMABLE
    return row
  }

  has(shelf: number, seq: number): boolean {
    const line = lineOf(shelf)
    const change = this.#changes.get(line, seq)
    if (change !== undefined) return change.kind !== 'remove'
    return this.#leases.get(line, seq) !== undefined || this.#statements.hasEntry.get([shelf, seq]) !== undefined
  }

  /** The message of an entry. */
  dataOf(row: Row): Buffer {
    return row.data ?? this.#changes.get(row.line, row.seq)?.row.data ?? this.#readAt(row)?.data ?? Buffer.alloc(0)
  }

  #shelvesOf(line: number): number[] {
    let shelves = this.#shelves.get(line)
    if (shelves === undefined) {
      shelves = otherShelves(line).filter((shelf) => this.#statements.hasShelf.get([shelf]) !== undefined)
      this.#shelves.set(line, shelves)
    }
    return shelves
  }

  add(row: Row): void {
    if (row.shelf !== row.line) {
      const shelves = this.#shelvesOf(row.line)
      if (!shelves.includes(row.shelf)) shelves.push(row.shelf)
    }
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

  /** What comes after an entry in the chain of its key: BLOCKED. To be asked before that entry leaves it. */
  nextOfChain({ topic, key, rank }: Row): EntryPlace | undefined {
    if (key === undefined) return undefined
    if (this.#chains.has(`${topic} ${key}`)) this.flush()
    const found = this.#statements.nextOfChain.get([topic, Buffer.from(key), ordOf(rank)])
    return found === undefined ? undefined : { shelf: Number(found[0]), seq: Number(found[1]) }
  }

  /** Makes a BLOCKED entry claimable, without reading it. */
  offer({ shelf, seq }: EntryPlace): void {
    this.#offered.set(shelf, seq, true)
  }

  list(name: ListName, values: readonly Value[]): Row[] {
    this.flush()
    return this.#listNow(name, values)
  }

  /** The dead letters of a line, by the time of their death, then by seq. */
  listByDeath(line: number, max: number): Row[] {
    const rows = this.list('listByDeath', [line, max])
    const last = rows.at(-1)
    if (last === undefined || rows.every(({ shelf }) => shelf === line)) return rows
    // Those that died with the last are listed shelf by shelf, and maybe not all.
    const before = rows.filter(({ at }) => at < last.at).sort((left, right) => left.at - right.at || bySeq(left, right))
    return [...before, ...this.listBySeq('listDeadAt', line, 0, max - before.length, [last.at])]
  }

  /**
   * The first entries of a line behind a seq, by seq, over all its shelves.
   *
   * @param more the values of the statement that follow the line
   */
  listBySeq(name: ShelfListName, line: number, after: number, max: number, more: readonly Value[] = []): Row[] {
    this.flush()
    const list = (shelf: number, behind: number, count: number) =>
      this.#listNow(name, [shelf, behind, count, line, ...more])
    const found = list(line, after, max)
    for (const shelf of this.#shelvesOf(line)) {
      // Few at first, since what is not among the first of all shelves is read in vain.
      let count = Math.max(SHELF_READ_MIN, max >> 3)
      for (let behind: number | undefined = after; behind !== undefined; count *= 2) {
        const rows = list(shelf, behind, count)
        if (rows.length > 0) found.push(...rows)
        found.sort(bySeq).splice(max)
        const last = rows.length === count ? rows.at(-1) : undefined
        const isFull = found.length === max && Number(found.at(-1)?.seq) < Number(last?.seq)
        behind = isFull ? undefined : last?.seq
      }
    }
    return found
  }

  #listNow(name: ListName | ShelfListName, values: readonly Value[]): Row[] {
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

  /** Claimable entries, by rank. */
  listRanked(places: readonly LanePlace[]): Row[] {
    const shelves = new Map<number, number[]>()
    for (const { shelf, seq } of places) listOf(shelves, shelf).push(seq)
    return [...shelves]
      .flatMap(([shelf, seqs]) => this.#listPacked('listRanked', [shelf, JSON.stringify(seqs)]))
      .sort((left, right) => left.rank - right.rank)
  }

  listPlaces(lanes: readonly (readonly [lane: number, after: number])[], max: number): LanePlace[] {
    this.flush()
    const [found] = this.#statements.listPlaces.get([JSON.stringify(lanes), max]) as readonly (Buffer | null)[]
    if (found === null || found === undefined) return []
    return found
      .toString('latin1')
      .split(';')
      .map((text) => {
        const [lane, rank, shelf, seq] = text.split(',')
        return { lane: Number(lane), rank: Number(rank), shelf: Number(shelf), seq: Number(seq) }
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
        const [shelf, seq, topic, lane, rank, expiresAt, isDroppable, key, restBytes, dataBytes] = text.split(',')
        const rest = restBytes === '0' ? null : (rests as Buffer).subarray(restAt, restAt + Number(restBytes))
        restAt += Number(restBytes)
        dataAt += Number(dataBytes)
        return rowOf({
          shelf: Number(shelf),
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
      for (const [shelf, seqs] of this.#offered.lines())
        this.#statements.offerEntries.run([shelf, JSON.stringify([...seqs.keys()])])
      this.#offered.clear()
    }
    if (this.#changes.size > 0) {
      for (const [, changes] of this.#changes.lines()) this.#write(changes.values())
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

  #write(changes: Iterable<Change>): void {
    const added: Row[] = []
    const leased = new Map<number, number[]>()
    const removed = new Map<number, number[]>()
    for (const { kind, row } of changes) {
      if (kind === 'add') added.push(row)
      else if (kind === 'lease') listOf(leased, row.shelf).push(row.seq)
      else if (kind === 'remove') listOf(removed, row.shelf).push(row.seq)
      else this.#statements.saveEntry.run(changedValues(row))
    }
    for (const [shelf, seqs] of removed) this.#statements.removeEntries.run([shelf, JSON.stringify(seqs)])
    for (const [shelf, seqs] of leased) this.#statements.leaseEntries.run([shelf, JSON.stringify(seqs)])
    this.#addAll(added)
  }

  /** Adds entries of one line: the plain ones of a shelf and state together. */
  #addAll(added: readonly Row[]): void {
    const plain = new Map<number, Row[]>()
    const others: Row[] = []
    for (const row of added) {
      if (!isPlain(row)) others.push(row)
      // States are below 8.
      else listOf(plain, row.shelf * 8 + row.state).push(row)
    }
    this.#add(ADDERS, others, [], pushValues)
    for (const rows of plain.values()) {
      const { shelf, line, lane, state } = rows[0] as Row
      this.#add(PLAIN_ADDERS, rows, [shelf, line, Math.min(lane, 0), state], pushPlainValues)
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

/** The list of a key in a map, made when it is not there. */
function listOf<Item>(map: Map<number, Item[]>, key: number): Item[] {
  let list = map.get(key)
  if (list === undefined) {
    list = []
    map.set(key, list)
  }
  return list
}
