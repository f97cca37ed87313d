/**
 * The leases that are out: in memory with their deadlines, which change with every `received` and `extend` and then cost no write, and in
 * the file as it takes to find them again.
 *
 * In the file, all leases of one claim are one row of `claims`; it goes with the last of them. Their entries are in state LEASED, and
 * where several rows name one entry, the one with the highest id is right.
 *
 * Grows with the leases that are out, which credit bounds, never with what waits. Changes are taken back with the
 * transaction that made them, by the undo log.
 */
import { SlotHeap } from '../slot-heap.ts'
import { Places } from './places.ts'
import { LEASED, type Row } from './row.ts'
import type { Statements } from './statements.ts'

/** The leases of one row of `claims`. */
interface Claim {
  readonly id: number
  /** How many are still out. */
  out: number
}

export interface Lease {
  /** The entry while it is leased, without its message. Never changed: who ends the lease takes a copy. */
  readonly row: Row
  readonly deadline: number
  readonly received: boolean
  readonly claim: Claim
  slot: number
}

/** What a claim says of one lease. */
export interface GrantedLease {
  readonly seq: number
  readonly token: string
  readonly holder: string
  readonly deliveries: number
}

/** Leases that began with their publishes, of one line at one time: one claim. */
interface Grants {
  readonly claim: Claim
  readonly line: number
  readonly claimedAt: number
  readonly leaseMs: number
  readonly leases: GrantedLease[]
}

/** What takes the changes of a transaction back, the last first. */
export type UndoLog = (() => void)[]

/** claims.data */
export function encodeClaim(claimedAt: number, leaseMs: number, leases: readonly GrantedLease[]): Buffer {
  const rows = leases.map(({ seq, token, holder, deliveries }) => [seq, token, holder, deliveries])
  return Buffer.from(JSON.stringify([claimedAt, leaseMs, rows]))
}

type DecodedClaim = [number, number, [seq: number, token: string, holder: string, deliveries: number][]]

/** Claims whose rows go at once. */
const REMOVED_AT_ONCE = 1000

/** See the top of this file. */
export class Leases {
  readonly #leases = new Places<Lease>()
  readonly #byDeadline: SlotHeap<'slot', Lease> = new SlotHeap('slot', (left, right) => left.deadline < right.deadline)
  #lastClaim = 0
  #overClaims: number[] = []
  /** Of this transaction, not written yet. */
  #grants: Grants[] = []
  #sorted: { readonly line: number; readonly leases: readonly Lease[] } | undefined
  undo: UndoLog = []

  get(line: number, seq: number): Lease | undefined {
    return this.#leases.get(line, seq)
  }

  /** The first leases of a line with a higher seq. */
  list(line: number, after: number, max: number): readonly Lease[] {
    if (this.#sorted?.line !== line) {
      this.#sorted = { line, leases: [...this.#leases.of(line)].sort((left, right) => left.row.seq - right.row.seq) }
    }
    const { leases } = this.#sorted
    let [low, high] = [0, leases.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (Number(leases[middle]?.row.seq) > after) high = middle
      else low = middle + 1
    }
    return leases.slice(low, low + max)
  }

  /** Writes what the leases of one claim take to be found again, and names its row for {@link begin}. */
  addClaim(
    statements: Statements,
    line: number,
    claimedAt: number,
    leaseMs: number,
    leases: readonly GrantedLease[],
  ): Claim {
    this.#lastClaim += 1
    statements.addClaim.run([this.#lastClaim, line, encodeClaim(claimedAt, leaseMs, leases)])
    return { id: this.#lastClaim, out: 0 }
  }

  /** Remembers the lease of a new entry for the row that is written at the end of the transaction, and names it for {@link begin}. */
  grant(line: number, claimedAt: number, leaseMs: number, lease: GrantedLease): Claim {
    let grants = this.#grants.at(-1)
    if (grants?.line !== line || grants.claimedAt !== claimedAt || grants.leaseMs !== leaseMs) {
      this.#lastClaim += 1
      grants = { claim: { id: this.#lastClaim, out: 0 }, line, claimedAt, leaseMs, leases: [] }
      this.#grants.push(grants)
    }
    grants.leases.push(lease)
    return grants.claim
  }

  /** Begins a lease of an entry that has none. The row is the lease's from now on. */
  begin(row: Row, deadline: number, received: boolean, claim: Claim): void {
    row.data = undefined
    this.#exchange(row, undefined, { row, deadline, received, claim, slot: -1 })
  }

  /** Changes a lease's deadline. */
  prolong(lease: Lease, deadline: number): void {
    this.#exchange(lease.row, lease, { row: lease.row, deadline, received: true, claim: lease.claim, slot: -1 })
  }

  end(lease: Lease): void {
    this.#exchange(lease.row, lease, undefined)
  }

  /** Up to `max` leases that are over, and one more if there is one. */
  listOver(now: number, max: number): Lease[] {
    let isPast = false
    return this.#byDeadline.list(max + 1, (lease) => {
      if (isPast) return false
      isPast = lease.deadline > now
      return true
    })
  }

  /** Writes the rows of new leases, and removes those of claims of which no lease is out. */
  flush(statements: Statements): void {
    for (const { claim, line, claimedAt, leaseMs, leases } of this.#grants.splice(0))
      statements.addClaim.run([claim.id, line, encodeClaim(claimedAt, leaseMs, leases)])
    while (this.#overClaims.length > 0) {
      statements.removeClaims.run([JSON.stringify(this.#overClaims.splice(-REMOVED_AT_ONCE))])
    }
  }

  /** After the transaction was committed. */
  keep(): void {
    this.undo = []
  }

  /** After it was rolled back. */
  takeBack(): void {
    for (const undo of this.undo.reverse()) undo()
    this.undo = []
    this.#overClaims = []
    this.#grants = []
  }

  /**
   * Finds the leases in the file, when it was opened: each is over one period later.
   *
   * @param read an entry of the file
   */
  load(statements: Statements, now: number, read: (line: number, seq: number) => Row | undefined): void {
    for (let last = 0; ; ) {
      const page = statements.listClaims.all([last])
      for (const [id, line, data] of page as [number, number, Buffer][]) {
        last = id
        this.#loadClaim({ id, out: 0 }, line, data, now, read)
      }
      if (page.length === 0) break
      this.#lastClaim = last
    }
    this.undo = []
  }

  #loadClaim(
    claim: Claim,
    line: number,
    data: Buffer,
    now: number,
    read: (line: number, seq: number) => Row | undefined,
  ): void {
    const [claimedAt, leaseMs, leases] = JSON.parse(data.toString()) as DecodedClaim
    for (const [seq, token, holder, deliveries] of leases) {
      const row = this.get(line, seq)?.row ?? read(line, seq)
      if (row === undefined || row.state !== LEASED) continue
      const found = { ...row, token, holder, deliveries, claimedAt, leaseMs, isCounted: false, data: undefined }
      const lease = { row: found, deadline: now + leaseMs, received: false, claim, slot: -1 }
      this.#exchange(row, this.get(line, seq), lease)
    }
    if (claim.out === 0) this.#overClaims.push(claim.id)
  }

  #exchange(row: Row, before: Lease | undefined, after: Lease | undefined): void {
    this.#replace(row, before, after)
    this.undo.push(() => this.#replace(row, after, before))
  }

  #replace({ line, seq }: Row, before: Lease | undefined, after: Lease | undefined): void {
    if (this.#sorted?.line === line) this.#sorted = undefined
    if (before !== undefined) this.#byDeadline.remove(before)
    if (after === undefined) this.#leases.delete(line, seq)
    else {
      this.#leases.set(line, seq, after)
      this.#byDeadline.add(after)
    }
    if (before?.claim === after?.claim) return
    if (after !== undefined) after.claim.out += 1
    if (before !== undefined) {
      before.claim.out -= 1
      if (before.claim.out === 0) this.#overClaims.push(before.claim.id)
    }
  }
}
