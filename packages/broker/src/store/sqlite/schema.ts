/**
 * The schema of the sqlite store, and the steps from each version to the next.
 *
 * What the tables of the present version mean:
 *
 * | table | what |
 * |---|---|
 * | `numbers` | below what number seqs and order numbers were drawn |
 * | `queues`, `lines`, `topics` | names, ids and counts. Ids of topics are never given again, those of lines once nothing is left of them |
 * | `entries` | one row an entry, with its message where that is small and not shared (message-data.ts) |
 * | `bodies`, `shares` | bodies that are large or shared, by seq, and how many entries share one |
 * | `claims` | the leases that are out, those of one claim in one row (leases.ts) |
 * | `dedupe` | the deduplication records, by dedupe-key.ts, several in a row where they lie side by side (dedupe-block.ts) |
 * | `old_dedupe` | when the last of them is over whose message was gone in version 1, and that kept that version's key |
 * | `probe` | empty but for a moment |
 *
 * entries.id: shelf * 2^44 + seq: entries of a line and a priority lie together, in the order of publishing (shelf.ts). Always made and
 * read in SQL: it is too large for a number of JavaScript.
 * entries.lane: what claims look through: the topic in the queue's own line, -line in a subscription's.
 * entries.state: 2 READY and claimable, 3 READY behind its key, 4 DELAYED, 5 LEASED, 6 DEAD.
 * entries.rank: (9 - priority) * 2^44 + order number (0 before the first READY): the order of claims.
 * entries.ord: the order number of what is in the chain of a key, else NULL.
 * entries.at: dueAt of DELAYED, diedAt of DEAD.
 * entries.is_droppable: published with `dead-letter-oldest`; lines.undroppable: how many READY ones were not.
 * entries.rest: JSON of what most entries never have (row.ts); of a LEASED one as it was before the claim.
 * dedupe.key, dedupe.seq: of the last record of the row; dedupe.hash: what its topic and body come to, then the records before it.
 * dedupe.line: the shelf of the entries that keep the records beyond their time; 0 for messages with several or none.
 * dedupe.ending: 1 while `until` bounds the records, 0 once only the messages' life does.
 */
import type { Connection } from './database.ts'
import { toVersion2 } from './migration-2.ts'

/**
 * The steps that make each version out of the one before. Never change one that was released: add another. All that are needed run in one
 * transaction, so a process that dies in between leaves the old version.
 */
export const MIGRATIONS: readonly ((db: Connection) => void)[] = [
  (db) => {
    db.exec(VERSION_1)
  },
  toVersion2,
  (db) => {
    db.exec(VERSION_3)
  },
  // Version 4 has shelves for other priorities. Earlier versions would not find what lies there, so they must not open the file; there is
  // nothing to rewrite, however much waits.
  () => undefined,
  // Version 5 has deduplication records of many publishes in one row (dedupe-block.ts). Earlier versions would find the last of them alone.
  () => undefined,
]

/** The version that this code writes. */
export const SCHEMA_VERSION: number = MIGRATIONS.length

/**
 * entries.state: 1 READY and claimable, 2 READY behind its key, 3 DELAYED, 4 LEASED, 5 DEAD.
 * messages.data: head (JSON), meta and body, one after the other; sum: its CRC-32.
 */
const VERSION_1 = `
CREATE TABLE numbers (id INTEGER PRIMARY KEY CHECK (id = 1), reserved INTEGER NOT NULL);
INSERT INTO numbers VALUES (1, 0);
CREATE TABLE queues (id INTEGER PRIMARY KEY, address BLOB NOT NULL UNIQUE, endings INTEGER NOT NULL DEFAULT 0);
CREATE TABLE lines (
  id INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL, subscription BLOB NOT NULL, meta BLOB NOT NULL,
  created_at INTEGER NOT NULL, touched_at INTEGER NOT NULL, is_gone INTEGER NOT NULL DEFAULT 0,
  undroppable INTEGER NOT NULL DEFAULT 0,
  ready INTEGER NOT NULL DEFAULT 0, claimable INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0,
  leased INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0, dead_bytes INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX lines_name ON lines (queue, subscription) WHERE is_gone = 0;
CREATE TABLE topics (
  id INTEGER PRIMARY KEY AUTOINCREMENT, line INTEGER NOT NULL, name BLOB NOT NULL,
  ready INTEGER NOT NULL DEFAULT 0, claimable INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0,
  leased INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0, dead_bytes INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX topics_name ON topics (line, name);
CREATE TABLE messages (
  seq INTEGER PRIMARY KEY, head_bytes INTEGER NOT NULL, meta_bytes INTEGER NOT NULL, sum INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE shares (seq INTEGER PRIMARY KEY, entries INTEGER NOT NULL);
CREATE TABLE entries (
  line INTEGER NOT NULL, seq INTEGER NOT NULL, topic INTEGER NOT NULL, lane INTEGER NOT NULL, state INTEGER NOT NULL,
  ord INTEGER NOT NULL, rank INTEGER NOT NULL, at INTEGER NOT NULL, expires_at INTEGER,
  failures INTEGER NOT NULL, deliveries INTEGER NOT NULL, token BLOB, holder BLOB, claimed_at INTEGER NOT NULL, lease_ms INTEGER NOT NULL,
  is_counted INTEGER NOT NULL, history BLOB, bytes INTEGER NOT NULL, key BLOB, reason INTEGER NOT NULL,
  is_shared INTEGER NOT NULL, dedupe_until INTEGER, is_droppable INTEGER NOT NULL,
  PRIMARY KEY (line, seq)
) WITHOUT ROWID;
CREATE INDEX entries_claim ON entries (line, lane, rank) WHERE state = 1;
CREATE INDEX entries_chain ON entries (line, topic, key, ord) WHERE key IS NOT NULL AND ord > 0 AND state < 5;
CREATE INDEX entries_due ON entries (at) WHERE state = 3;
CREATE INDEX entries_ttl ON entries (expires_at) WHERE expires_at IS NOT NULL AND state < 4;
CREATE INDEX entries_rest ON entries (line, state, seq) WHERE state > 2;
CREATE INDEX entries_death ON entries (line, at, seq) WHERE state = 5;
CREATE INDEX entries_overflow ON entries (line, seq) WHERE is_droppable = 1 AND state < 3;
CREATE TABLE dedupe (
  queue INTEGER NOT NULL, key BLOB NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, until INTEGER NOT NULL,
  ending INTEGER NOT NULL, PRIMARY KEY (queue, key)
) WITHOUT ROWID;
CREATE INDEX dedupe_ending ON dedupe (queue, until, seq) WHERE ending = 1;
CREATE TABLE probe (data BLOB NOT NULL);
`

/**
 * The chain of a key without the state in its condition: SQLite writes an index again whenever a column of its condition changes, so that
 * each claim wrote a page of it for each of its messages. What is dead has no `ord` any more.
 */
const VERSION_3 = `
DROP INDEX entries_chain;
UPDATE entries SET ord = NULL WHERE state = 6 AND ord IS NOT NULL;
CREATE INDEX entries_chain ON entries (topic, key, ord) WHERE ord IS NOT NULL;
`
