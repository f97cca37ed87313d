/**
 * Every statement of the sqlite store, prepared once for a connection. None of those that a publish, a claim or a settle
 * runs scans a table: test/store-plans.test.ts asks SQLite for the plan of each.
 */
import type { Connection } from './database.ts'

/** A value of a column. Text is BLOB (see database.ts). */
export type Value = number | Buffer | null

/** A prepared statement: rows are arrays of columns. */
export interface Statement {
  run(values: readonly Value[]): { readonly changes: number }
  get(values: readonly Value[]): readonly Value[] | undefined
  all(values: readonly Value[]): (readonly Value[])[]
}

/** The columns of an entry, in the order of `readRow`. */
const ENTRY =
  'line, seq, topic, lane, state, ord, rank, at, expires_at, failures, deliveries, token, holder, claimed_at, lease_ms, is_counted, history, bytes, key, reason, is_shared, dedupe_until, is_droppable'
const COUNTS = 'ready, claimable, delayed, leased, dead, bytes, dead_bytes'
const SET_COUNTS = 'ready = ?, claimable = ?, delayed = ?, leased = ?, dead = ?, bytes = ?, dead_bytes = ?'
const IS_LIVE = 'ready + delayed + leased + dead > 0'

/** The names of the statements. */
export type StatementName =
  | 'readNumbers'
  | 'reserveNumbers'
  | 'findQueue'
  | 'addQueue'
  | 'saveQueue'
  | 'listLines'
  | 'addLine'
  | 'saveLine'
  | 'loseLine'
  | 'touchLine'
  | 'removeLine'
  | 'readLine'
  | 'findTopic'
  | 'readTopic'
  | 'addTopic'
  | 'saveTopic'
  | 'removeTopic'
  | 'listTopics'
  | 'listWaiting'
  | 'addMessage'
  | 'readMessage'
  | 'readHead'
  | 'hasMessage'
  | 'removeMessage'
  | 'addShare'
  | 'dropShare'
  | 'removeShare'
  | 'addEntry'
  | 'readEntry'
  | 'saveEntry'
  | 'leaseEntry'
  | 'removeEntry'
  | 'firstOfChain'
  | 'offerEntry'
  | 'listClaimable'
  | 'listDroppable'
  | 'listUndroppable'
  | 'listDue'
  | 'nextDue'
  | 'listExpired'
  | 'nextExpiry'
  | 'listDead'
  | 'listLeased'
  | 'listEntries'
  | 'listOfState'
  | 'findDedupe'
  | 'addDedupe'
  | 'firstEnding'
  | 'keepDedupe'
  | 'removeDedupe'
  | 'releaseDedupe'
  | 'addProbe'
  | 'clearProbe'

/** The text of each statement. */
export const SQL: Readonly<Record<StatementName, string>> = {
  readNumbers: 'SELECT reserved FROM numbers WHERE id = 1',
  reserveNumbers: 'UPDATE numbers SET reserved = ? WHERE id = 1',

  findQueue: 'SELECT id, endings FROM queues WHERE address = ?',
  addQueue: 'INSERT INTO queues (address) VALUES (?) RETURNING id',
  saveQueue: 'UPDATE queues SET endings = ? WHERE id = ?',

  listLines: `SELECT l.id, q.address, l.subscription, l.is_gone, l.undroppable, l.${COUNTS.replaceAll(', ', ', l.')} FROM lines l JOIN queues q ON q.id = l.queue`,
  addLine: 'INSERT INTO lines (queue, subscription, meta, created_at, touched_at) VALUES (?, ?, ?, ?, ?) RETURNING id',
  saveLine: `UPDATE lines SET undroppable = ?, ${SET_COUNTS} WHERE id = ?`,
  loseLine: 'UPDATE lines SET is_gone = 1 WHERE id = ?',
  touchLine: 'UPDATE lines SET touched_at = ? WHERE id = ?',
  removeLine: 'DELETE FROM lines WHERE id = ?',
  readLine: 'SELECT meta, created_at, touched_at FROM lines WHERE id = ?',

  findTopic: `SELECT id, ${COUNTS} FROM topics WHERE line = ? AND name = ?`,
  readTopic: `SELECT line, name, ${COUNTS} FROM topics WHERE id = ?`,
  addTopic: 'INSERT INTO topics (line, name) VALUES (?, ?) RETURNING id',
  saveTopic: `UPDATE topics SET ${SET_COUNTS} WHERE id = ?`,
  removeTopic: 'DELETE FROM topics WHERE id = ?',
  listTopics: `SELECT name, ${COUNTS} FROM topics WHERE line = ? AND name > ? AND ${IS_LIVE} ORDER BY name LIMIT ?`,
  listWaiting: 'SELECT id FROM topics WHERE claimable > 0 LIMIT ?',

  addMessage: 'INSERT INTO messages (seq, head_bytes, meta_bytes, sum, data) VALUES (?, ?, ?, ?, ?)',
  readMessage: 'SELECT head_bytes, meta_bytes, sum, data FROM messages WHERE seq = ?',
  readHead: 'SELECT substr(data, 1, head_bytes) FROM messages WHERE seq = ?',
  hasMessage: 'SELECT 1 FROM messages WHERE seq = ?',
  removeMessage: 'DELETE FROM messages WHERE seq = ?',
  addShare: 'INSERT INTO shares (seq, entries) VALUES (?, ?)',
  dropShare: 'UPDATE shares SET entries = entries - 1 WHERE seq = ? RETURNING entries',
  removeShare: 'DELETE FROM shares WHERE seq = ?',

  addEntry: `INSERT INTO entries (${ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  readEntry: `SELECT ${ENTRY} FROM entries WHERE line = ? AND seq = ?`,
  saveEntry:
    'UPDATE entries SET state = ?, ord = ?, rank = ?, at = ?, expires_at = ?, failures = ?, deliveries = ?, token = ?, holder = ?, claimed_at = ?, is_counted = ?, history = ?, reason = ? WHERE line = ? AND seq = ?',
  leaseEntry:
    'UPDATE entries SET state = 4, token = ?, holder = ?, claimed_at = ?, lease_ms = ?, deliveries = ?, is_counted = 0 WHERE line = ? AND seq = ?',
  removeEntry: 'DELETE FROM entries WHERE line = ? AND seq = ?',
  firstOfChain: `SELECT ${ENTRY} FROM entries WHERE line = ? AND topic = ? AND key = ? AND ord > 0 AND state < 5 ORDER BY ord LIMIT 1`,
  offerEntry: 'UPDATE entries SET state = 1 WHERE line = ? AND seq = ?',
  listClaimable: `SELECT ${ENTRY} FROM entries WHERE line = ? AND lane = ? AND rank > ? AND state = 1 ORDER BY rank LIMIT ?`,
  listDroppable: `SELECT ${ENTRY} FROM entries INDEXED BY entries_overflow WHERE line = ? AND is_droppable = 1 AND state < 3 ORDER BY seq LIMIT ?`,
  listUndroppable: `SELECT ${ENTRY} FROM entries WHERE line = ? AND is_droppable = 0 AND state < 3 ORDER BY seq LIMIT ?`,
  listDue: `SELECT ${ENTRY} FROM entries WHERE state = 3 AND at <= ? ORDER BY at LIMIT ?`,
  nextDue: 'SELECT at FROM entries WHERE state = 3 AND at > ? ORDER BY at LIMIT 1',
  listExpired: `SELECT ${ENTRY} FROM entries WHERE state < 4 AND expires_at IS NOT NULL AND expires_at <= ? ORDER BY expires_at LIMIT ?`,
  nextExpiry:
    'SELECT expires_at FROM entries WHERE state < 4 AND expires_at IS NOT NULL AND expires_at > ? ORDER BY expires_at LIMIT 1',
  listDead: `SELECT ${ENTRY} FROM entries WHERE line = ? AND state = 5 ORDER BY at, seq LIMIT ?`,
  listLeased: 'SELECT seq, lease_ms FROM entries INDEXED BY entries_rest WHERE line = ? AND state = 4 AND state > 2',
  listEntries: `SELECT ${ENTRY} FROM entries WHERE line = ? AND seq > ? ORDER BY seq LIMIT ?`,
  listOfState: `SELECT ${ENTRY} FROM entries INDEXED BY entries_rest WHERE line = ? AND state = ? AND state > 2 AND seq > ? ORDER BY seq LIMIT ?`,

  findDedupe: 'SELECT seq, hash, until FROM dedupe WHERE queue = ? AND key = ?',
  addDedupe: 'INSERT INTO dedupe (queue, key, seq, hash, until, ending) VALUES (?, ?, ?, ?, ?, ?)',
  firstEnding: 'SELECT key, seq, until FROM dedupe WHERE queue = ? AND ending = 1 ORDER BY until, seq LIMIT 1',
  keepDedupe: 'UPDATE dedupe SET ending = 0 WHERE queue = ? AND key = ?',
  removeDedupe: 'DELETE FROM dedupe WHERE queue = ? AND key = ?',
  releaseDedupe: 'DELETE FROM dedupe WHERE queue = ? AND key = ? AND seq = ? RETURNING ending',

  addProbe: 'INSERT INTO probe (data) VALUES (zeroblob(65536))',
  clearProbe: 'DELETE FROM probe',
}

export type Statements = Readonly<Record<StatementName, Statement>>

export function prepareStatements(db: Connection): Statements {
  const entries = Object.entries(SQL).map(([name, sql]) => {
    const statement = db.prepare(sql)
    return [name, sql.startsWith('SELECT') || sql.includes('RETURNING') ? statement.raw() : statement]
  })
  return Object.fromEntries(entries) as Statements
}
