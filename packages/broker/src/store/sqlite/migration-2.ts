/**
 * From version 1 to 2: entry, message and lease each had a row of its own and most columns an index. Now a small message lies in the
 * row of its entry, and the leases of a claim are one row.
 *
 * It reads and writes {@link PAGE} entries at a time, all in the transaction of the caller.
 */
import { crc32 } from 'node:zlib'
import type { HistoryEntry } from '../entry.ts'
import { dedupeKeyOf } from './dedupe-key.ts'
import type { Connection } from './database.ts'
import { encodeClaim } from './leases.ts'
import { type EncodedMessage, messageBytesOf, sealMessage, writeMessage } from './message-data.ts'
import { BLOCKED, CLAIMABLE, DEAD, DELAYED, LEASED, pushValues, type Row, rowOf } from './row.ts'
import type { Value } from './statements.ts'

const PAGE = 1000

const TABLES = `
CREATE TABLE lines_2 (
  id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, subscription BLOB NOT NULL, meta BLOB NOT NULL,
  created_at INTEGER NOT NULL, touched_at INTEGER NOT NULL, is_gone INTEGER NOT NULL DEFAULT 0,
  undroppable INTEGER NOT NULL DEFAULT 0,
  ready INTEGER NOT NULL DEFAULT 0, claimable INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0,
  leased INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0, dead_bytes INTEGER NOT NULL DEFAULT 0
);
INSERT INTO lines_2 SELECT id, queue, subscription, meta, created_at, touched_at, is_gone, undroppable, ready, claimable, delayed,
  leased, dead, bytes, dead_bytes FROM lines;
DROP TABLE lines;
ALTER TABLE lines_2 RENAME TO lines;
CREATE UNIQUE INDEX lines_name ON lines (queue, subscription) WHERE is_gone = 0;
ALTER TABLE dedupe RENAME TO dedupe_1;
DROP INDEX dedupe_ending;
CREATE INDEX dedupe_1_seq ON dedupe_1 (seq);
CREATE TABLE dedupe (
  queue INTEGER NOT NULL, key BLOB NOT NULL, seq INTEGER NOT NULL, line INTEGER NOT NULL, hash BLOB NOT NULL,
  until INTEGER NOT NULL, ending INTEGER NOT NULL, PRIMARY KEY (queue, key)
) WITHOUT ROWID;
ALTER TABLE entries RENAME TO entries_1;
CREATE TABLE bodies (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE claims (id INTEGER PRIMARY KEY, line INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE entries (
  id INTEGER PRIMARY KEY, line INTEGER NOT NULL, topic INTEGER NOT NULL, lane INTEGER NOT NULL, state INTEGER NOT NULL,
  rank INTEGER NOT NULL, at INTEGER NOT NULL, expires_at INTEGER, ord INTEGER, is_droppable INTEGER NOT NULL,
  key BLOB, rest BLOB, data BLOB NOT NULL
);
`

const INDEXES = `
DROP TABLE entries_1;
DROP TABLE messages;
DROP INDEX dedupe_1_seq;
CREATE TABLE old_dedupe (id INTEGER PRIMARY KEY CHECK (id = 1), until INTEGER NOT NULL);
INSERT INTO old_dedupe SELECT 1, coalesce(max(until), 0) FROM dedupe_1;
INSERT INTO dedupe (queue, key, seq, line, hash, until, ending) SELECT queue, key, seq, 0, hash, until, ending FROM dedupe_1;
DROP TABLE dedupe_1;
CREATE INDEX dedupe_ending ON dedupe (queue, until, seq) WHERE ending = 1;
CREATE INDEX entries_claim ON entries (lane, rank) WHERE state = 2;
CREATE INDEX entries_chain ON entries (topic, key, ord) WHERE ord IS NOT NULL AND state < 6;
CREATE INDEX entries_due ON entries (at) WHERE state = 4;
CREATE INDEX entries_ttl ON entries (expires_at) WHERE expires_at IS NOT NULL AND state < 5;
CREATE INDEX entries_delayed ON entries (line) WHERE state = 4;
CREATE INDEX entries_dead ON entries (line) WHERE state = 6;
CREATE INDEX entries_death ON entries (line, at) WHERE state = 6;
CREATE INDEX entries_overflow ON entries (line) WHERE is_droppable = 1 AND state < 4;
`

const OLD_ENTRIES = `
SELECT e.*, m.head_bytes, m.meta_bytes, m.sum, m.data FROM entries_1 e JOIN messages m ON m.seq = e.seq
WHERE (e.line, e.seq) > (?, ?) ORDER BY e.line, e.seq LIMIT ${PAGE}`

const ADD_ENTRY = `
INSERT INTO entries (id, line, topic, lane, state, rank, at, expires_at, ord, is_droppable, key, rest, data)
VALUES ((? << 44) | ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

const MOVE_RECORD = `
INSERT OR IGNORE INTO dedupe (queue, key, seq, line, hash, until, ending)
SELECT queue, ?, seq, ?, hash, until, ending FROM dedupe_1 WHERE seq = ?`

/** States of version 1 in the numbers of this one. */
const STATES = [0, CLAIMABLE, BLOCKED, DELAYED, LEASED, DEAD] as const

interface OldEntry {
  readonly line: number
  readonly seq: number
  readonly topic: number
  readonly state: number
  readonly rank: number
  readonly at: number
  readonly expires_at: number | null
  readonly failures: number
  readonly deliveries: number
  readonly token: Buffer | null
  readonly holder: Buffer | null
  readonly claimed_at: number
  readonly lease_ms: number
  readonly is_counted: number
  readonly history: Buffer | null
  readonly key: Buffer | null
  readonly reason: number
  readonly is_shared: number
  readonly lane: number
  readonly dedupe_until: number | null
  readonly is_droppable: number
  readonly head_bytes: number
  readonly meta_bytes: number
  readonly sum: number
  readonly data: Buffer
}

/** See the top of this file. */
export function toVersion2(db: Connection): void {
  db.exec(TABLES)
  const addEntry = db.prepare(ADD_ENTRY)
  const addBody = db.prepare('INSERT OR IGNORE INTO bodies (seq, data) VALUES (?, ?)')
  const addClaim = db.prepare('INSERT INTO claims (id, line, data) VALUES (?, ?, ?)')
  const moveRecord = db.prepare(MOVE_RECORD)
  const dropRecord = db.prepare('DELETE FROM dedupe_1 WHERE seq = ?')
  const listOld = db.prepare(OLD_ENTRIES)
  let claims = 0
  for (let last: { line: number; seq: number } | undefined = { line: -1, seq: -1 }; last !== undefined; ) {
    const page: OldEntry[] = (listOld.all([last.line, last.seq]) as Readonly<Record<string, unknown>>[]).map(
      withBuffers,
    )
    for (const old of page) {
      const { data, apart } = messageOf(old)
      const values: Value[] = []
      pushValues(values, rowOfOld(old, data))
      addEntry.run(values)
      if (apart !== undefined) addBody.run([old.seq, apart])
      if (old.state === 4) addClaim.run([++claims, old.line, claimOf(old)])
      if (old.dedupe_until !== null) {
        moveRecord.run([dedupeKeyOf(data), old.is_shared === 1 ? 0 : old.line, old.seq])
        dropRecord.run([old.seq])
      }
    }
    last = page.at(-1)
  }
  db.exec(INDEXES)
}

/** Rows by name have blobs as ArrayBuffers. */
function withBuffers(row: Readonly<Record<string, unknown>>): OldEntry {
  const columns = Object.entries(row).map(([name, value]) => [
    name,
    value instanceof ArrayBuffer ? Buffer.from(value) : value,
  ])
  return Object.fromEntries(columns) as OldEntry
}

function messageOf(old: OldEntry): EncodedMessage {
  const { head_bytes: headBytes, meta_bytes: metaBytes, data } = old
  const texts = {
    id: undefined,
    ...readHead(data.subarray(0, headBytes)),
    meta: data.toString('utf8', headBytes, headBytes + metaBytes),
    body: data.toString('utf8', headBytes + metaBytes),
  }
  const message = Buffer.alloc(messageBytesOf(texts))
  writeMessage(message, 0, texts)
  const sealed = sealMessage(message, texts.publishedAt, old.dedupe_until ?? undefined, old.is_shared === 1)
  // What was damaged stays so.
  if (crc32(data) !== old.sum) sealed.data.writeUInt32LE((sealed.data.readUInt32LE(0) ^ 1) >>> 0, 0)
  return sealed
}

/** A damaged head becomes an empty one, so that its entry can still be listed and ended. */
function readHead(data: Buffer): {
  readonly sender: string
  readonly id?: string
  readonly priority: number
  readonly publishedAt: number
} {
  try {
    return JSON.parse(data.toString())
  } catch {
    return { sender: '', priority: 0, publishedAt: 0 }
  }
}

function rowOfOld(old: OldEntry, data: Buffer): Row {
  const { line, seq, topic, rank, at } = old
  const row = rowOf({
    // All of a line lay together in that version.
    shelf: line,
    seq,
    topic,
    rank,
    at,
    data,
    rest: null,
    lane: old.lane === 0 ? -line : topic,
    state: STATES[old.state] as number,
    expiresAt: old.expires_at,
    isDroppable: old.is_droppable === 1,
    key: old.key?.toString(),
  })
  row.failures = old.failures
  row.deliveries = old.deliveries
  row.token = old.token?.toString()
  row.holder = old.holder?.toString()
  row.isCounted = old.is_counted === 1
  row.reason = old.reason
  row.history = old.history === null ? [] : (JSON.parse(old.history.toString()) as HistoryEntry[])
  return row
}

const claimOf = ({ seq, token, holder, deliveries, claimed_at: at, lease_ms: leaseMs }: OldEntry) =>
  encodeClaim(at, leaseMs, [{ seq, token: String(token), holder: String(holder), deliveries }])
