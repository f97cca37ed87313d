/**
 * Every statement of the sqlite store, prepared once for a connection. None of those that a publish, a claim or a settle
 * runs scans a table: test/store-sqlite-file.test.ts asks SQLite for the plan of each.
 */
import type { Connection } from './database.ts'
import { PAYLOAD_BYTES } from './dedupe-block.ts'

/** A value of a column. Text is BLOB (see database.ts). */
export type Value = number | Buffer | null

/** A value of a parameter: a text is the JSON of a list, which no column takes. */
export type Parameter = Value | string

/** A prepared statement: rows are arrays of columns. */
export interface Statement {
  run(values: readonly Parameter[]): { readonly changes: number }
  get(values: readonly Parameter[]): readonly Value[] | undefined
  all(values: readonly Parameter[]): (readonly Value[])[]
}

/** seq and shelf are one number in the file: entries.id. */
const ID = '((? << 44) | ?)'
const SEQ = '(id & 17592186044415)'
const SHELF = '(id >> 44)'
/** The columns of an entry, in the order of `readRow`. */
const ENTRY = `${SHELF} AS shelf, ${SEQ} AS seq, topic, lane, state, rank, at, expires_at, is_droppable, key, rest, data`
/** One row of `addEntry`. */
const NEW_ENTRY = `(${ID}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
/**
 * Rows that one statement adds or saves, the most first. What changes many rows does it `OR FAIL`: SQLite would else keep a copy of each page, to take
 * back this statement alone. Whatever fails, the engine takes back the whole transaction.
 */
export const ADDED_AT_ONCE = [64, 8, 1] as const
const addEntries = (count: number) =>
  `INSERT OR FAIL INTO entries (id, line, topic, lane, state, rank, at, expires_at, ord, is_droppable, key, rest, data) VALUES ${Array.from({ length: count }, () => NEW_ENTRY).join(', ')}`
/** Most entries are claimable or leased at once, without key, ttl or limits to give way to: shelf, line, lane (0: the topic), state, then seq, topic, rank, data of each. */
const addPlain = (count: number) => {
  const rows = Array.from({ length: count }, (_, row) => {
    const [seq, topic, rank, data] = [5, 6, 7, 8].map((place) => `?${place + 4 * row}`)
    return `((?1 << 44) | ${seq}, ?2, ${topic}, iif(?3 = 0, ${topic}, ?3), ?4, ${rank}, 0, 0, ${data})`
  })
  return `INSERT OR FAIL INTO entries (id, line, topic, lane, state, rank, at, is_droppable, data) VALUES ${rows.join(', ')}`
}
const addDedupe = (count: number) =>
  `INSERT OR FAIL INTO dedupe (queue, key, seq, line, hash, until, ending) VALUES ${Array.from({ length: count }, () => '(?, ?, ?, ?, ?, ?, ?)').join(', ')}`
/** Keys that `removeDedupe` takes; to remove fewer, some are given twice. */
export const DEDUPE_REMOVED_AT_ONCE = 8
/** A row of records, as dedupe.ts reads it. */
const BLOCK = 'key, seq, line, until, ending, hash'
const IS_ALONE = `octet_length(hash) = ${PAYLOAD_BYTES}`
/** The ids of a shelf that a JSON list of seqs names. */
const LISTED_IDS = '(SELECT (?1 << 44) | value FROM json_each(?2))'
/** Where to look in one shelf: its number, behind what seq, how many at most; its line, for the indexes that go by that. */
const ON_SHELF = 'line = ?4 AND id > ((?1 << 44) | ?2) AND id < ((?1 + 1) << 44)'
/** Of `listPlaces`: a lane, and the rank behind which to look. */
const [LANE, AFTER] = ['(value ->> 0)', '(value ->> 1)']
/** Many entries in three values, as few as can be: each that goes over to JavaScript costs as much as finding its row. */
const packed = (where: string) =>
  `SELECT CAST(group_concat(shelf || ',' || seq || ',' || topic || ',' || lane || ',' || rank || ',' || coalesce(expires_at, '') || ',' || is_droppable || ',' || iif(key IS NULL, '-', hex(key)) || ',' || coalesce(octet_length(rest), 0) || ',' || octet_length(data), ';') AS BLOB), CAST(group_concat(rest, '') AS BLOB), CAST(group_concat(data, '') AS BLOB) FROM (SELECT ${ENTRY} FROM entries WHERE ${where})`
const COUNTS = 'ready, claimable, delayed, leased, dead, bytes, dead_bytes'
const SET_COUNTS = 'ready = ?, claimable = ?, delayed = ?, leased = ?, dead = ?, bytes = ?, dead_bytes = ?'
/** The counts of many topics, each with its id behind them. */
const saveTopics = (count: number) => {
  const rows = Array.from({ length: count }, () => '(?, ?, ?, ?, ?, ?, ?, ?)').join(', ')
  const columns = COUNTS.split(', ').map((column, place) => `${column} = given.column${place + 1}`)
  return `UPDATE OR FAIL topics SET ${columns.join(', ')} FROM (VALUES ${rows}) AS given WHERE id = given.column8`
}
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
  | 'saveTopics64'
  | 'saveTopics8'
  | 'saveTopics1'
  | 'removeTopic'
  | 'removeTopics'
  | 'listTopics'
  | 'listWaiting'
  | 'addBody'
  | 'readBody'
  | 'hasBody'
  | 'removeBody'
  | 'addShare'
  | 'dropShare'
  | 'removeShare'
  | 'addEntries64'
  | 'addEntries8'
  | 'addEntries1'
  | 'addPlain64'
  | 'addPlain8'
  | 'addPlain1'
  | 'hasEntry'
  | 'hasShelf'
  | 'readEntry'
  | 'findEntry'
  | 'saveEntry'
  | 'leaseEntries'
  | 'offerEntries'
  | 'removeEntries'
  | 'addClaim'
  | 'listClaims'
  | 'removeClaims'
  | 'firstOfChain'
  | 'nextOfChain'
  | 'listClaimable'
  | 'listRanked'
  | 'listPlaces'
  | 'listDroppable'
  | 'listUndroppable'
  | 'listDue'
  | 'nextDue'
  | 'listExpired'
  | 'nextExpiry'
  | 'listByDeath'
  | 'listDeadAt'
  | 'listEntries'
  | 'listDelayed'
  | 'listDead'
  | 'findDedupe'
  | 'addDedupe8'
  | 'addDedupe1'
  | 'readOldDedupe'
  | 'listEnded'
  | 'firstEnding'
  | 'anyEntry'
  | 'anyBody'
  | 'cutDedupe'
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
  addLine: 'INSERT INTO lines (id, queue, subscription, meta, created_at, touched_at) VALUES (?, ?, ?, ?, ?, ?)',
  saveLine: `UPDATE lines SET undroppable = ?, ${SET_COUNTS} WHERE id = ?`,
  loseLine: 'UPDATE lines SET is_gone = 1 WHERE id = ?',
  touchLine: 'UPDATE lines SET touched_at = ? WHERE id = ?',
  removeLine: 'DELETE FROM lines WHERE id = ?',
  readLine: 'SELECT meta, created_at, touched_at FROM lines WHERE id = ?',

  findTopic: `SELECT id, ${COUNTS} FROM topics WHERE line = ? AND name = ?`,
  readTopic: `SELECT line, name, ${COUNTS} FROM topics WHERE id = ?`,
  addTopic: 'INSERT INTO topics (line, name) VALUES (?, ?) RETURNING id',
  saveTopics64: saveTopics(64),
  saveTopics8: saveTopics(8),
  saveTopics1: `UPDATE topics SET ${SET_COUNTS} WHERE id = ?`,
  removeTopic: 'DELETE FROM topics WHERE id = ?',
  removeTopics: 'DELETE FROM topics WHERE line = ?',
  listTopics: `SELECT name, ${COUNTS} FROM topics WHERE line = ? AND name > ? AND ${IS_LIVE} ORDER BY name LIMIT ?`,
  listWaiting: 'SELECT id FROM topics WHERE claimable > 0 LIMIT ?',

  addBody: 'INSERT INTO bodies (seq, data) VALUES (?, ?)',
  readBody: 'SELECT data FROM bodies WHERE seq = ?',
  hasBody: 'SELECT 1 FROM bodies WHERE seq = ?',
  removeBody: 'DELETE FROM bodies WHERE seq = ?',
  addShare: 'INSERT INTO shares (seq, entries) VALUES (?, ?)',
  dropShare: 'UPDATE shares SET entries = entries - 1 WHERE seq = ? RETURNING entries',
  removeShare: 'DELETE FROM shares WHERE seq = ?',

  addEntries64: addEntries(64),
  addEntries8: addEntries(8),
  addEntries1: addEntries(1),
  addPlain64: addPlain(64),
  addPlain8: addPlain(8),
  addPlain1: addPlain(1),
  hasEntry: `SELECT 1 FROM entries WHERE id = ${ID}`,
  hasShelf: 'SELECT 1 FROM entries WHERE id > (?1 << 44) AND id < ((?1 + 1) << 44) LIMIT 1',
  readEntry: `SELECT ${ENTRY} FROM entries WHERE id = ${ID}`,
  findEntry: `SELECT ${ENTRY} FROM entries WHERE id IN (SELECT (value << 44) | ?1 FROM json_each(?2))`,
  saveEntry: `UPDATE entries SET state = ?, rank = ?, at = ?, expires_at = ?, ord = ?, rest = ? WHERE id = ${ID}`,
  leaseEntries: `UPDATE OR FAIL entries SET state = 5 WHERE id IN ${LISTED_IDS}`,
  offerEntries: `UPDATE OR FAIL entries SET state = 2 WHERE id IN ${LISTED_IDS}`,
  removeEntries: `DELETE FROM entries WHERE id IN ${LISTED_IDS}`,
  addClaim: 'INSERT INTO claims (id, line, data) VALUES (?, ?, ?)',
  listClaims: 'SELECT id, line, data FROM claims WHERE id > ? ORDER BY id LIMIT 100',
  removeClaims: 'DELETE FROM claims WHERE id IN (SELECT value FROM json_each(?))',
  firstOfChain: 'SELECT 1 FROM entries WHERE topic = ? AND key = ? AND ord IS NOT NULL LIMIT 1',
  nextOfChain: `SELECT ${SHELF}, ${SEQ} FROM entries WHERE topic = ? AND key = ? AND ord > ? AND ord IS NOT NULL ORDER BY ord LIMIT 1`,
  listClaimable: packed('lane = ? AND rank > ? AND state = 2 ORDER BY rank LIMIT ?'),
  listRanked: packed(`id IN ${LISTED_IDS}`),
  listPlaces: `SELECT CAST(group_concat(lane || ',' || rank || ',' || shelf || ',' || seq, ';') AS BLOB) FROM (SELECT e.lane, e.rank, (e.id >> 44) AS shelf, (e.id & 17592186044415) AS seq FROM json_each(?1) CROSS JOIN entries e INDEXED BY entries_claim ON e.lane = ${LANE} AND e.rank > ${AFTER} AND e.state = 2 WHERE e.rank <= ifnull((SELECT rank FROM entries WHERE lane = ${LANE} AND rank > ${AFTER} AND state = 2 ORDER BY rank LIMIT 1 OFFSET ?2 - 1), 9223372036854775807))`,
  listDroppable: `SELECT ${ENTRY} FROM entries INDEXED BY entries_overflow WHERE ${ON_SHELF} AND is_droppable = 1 AND state < 4 ORDER BY id LIMIT ?3`,
  listUndroppable: `SELECT ${ENTRY} FROM entries WHERE ${ON_SHELF} AND is_droppable = 0 AND state < 4 ORDER BY id LIMIT ?3`,
  listDue: `SELECT ${ENTRY} FROM entries WHERE state = 4 AND at <= ? ORDER BY at LIMIT ?`,
  nextDue: 'SELECT at FROM entries WHERE state = 4 AND at > ? ORDER BY at LIMIT 1',
  listExpired: `SELECT ${ENTRY} FROM entries WHERE state < 5 AND expires_at IS NOT NULL AND expires_at <= ? ORDER BY expires_at LIMIT ?`,
  nextExpiry:
    'SELECT expires_at FROM entries WHERE state < 5 AND expires_at IS NOT NULL AND expires_at > ? ORDER BY expires_at LIMIT 1',
  listByDeath: `SELECT ${ENTRY} FROM entries INDEXED BY entries_death WHERE line = ? AND state = 6 ORDER BY at, id LIMIT ?`,
  listDeadAt: `SELECT ${ENTRY} FROM entries INDEXED BY entries_death WHERE ${ON_SHELF} AND at = ?5 AND state = 6 ORDER BY id LIMIT ?3`,
  listEntries: `SELECT ${ENTRY} FROM entries WHERE ${ON_SHELF} ORDER BY id LIMIT ?3`,
  listDelayed: `SELECT ${ENTRY} FROM entries INDEXED BY entries_delayed WHERE ${ON_SHELF} AND state = 4 ORDER BY id LIMIT ?3`,
  listDead: `SELECT ${ENTRY} FROM entries INDEXED BY entries_dead WHERE ${ON_SHELF} AND state = 6 ORDER BY id LIMIT ?3`,

  // The hash only where it is needed.
  findDedupe: `SELECT key, seq, line, until, ending, iif(${IS_ALONE} AND key <> ?2, NULL, hash) FROM dedupe WHERE queue = ?1 AND key >= ?2 ORDER BY key LIMIT 1`,
  addDedupe8: addDedupe(8),
  addDedupe1: addDedupe(1),
  readOldDedupe: 'SELECT until FROM old_dedupe WHERE id = 1',
  // Of one record alone in its row: no `hash`, but whether its message is still there.
  listEnded: `SELECT key, seq, line, until, ending, iif(${IS_ALONE}, NULL, hash), iif(${IS_ALONE}, iif(line = 0, EXISTS (SELECT 1 FROM bodies b WHERE b.seq = d.seq), EXISTS (SELECT 1 FROM entries e WHERE e.id = ((d.line << 44) | d.seq))), NULL) FROM dedupe d WHERE queue = ? AND ending = 1 AND until <= ? ORDER BY until, seq LIMIT ?`,
  firstEnding: `SELECT ${BLOCK} FROM dedupe WHERE queue = ? AND ending = 1 ORDER BY until, seq LIMIT 1`,
  anyEntry: 'SELECT 1 FROM entries WHERE id >= ((?1 << 44) | ?2) AND id <= ((?1 << 44) | ?3) LIMIT 1',
  anyBody: 'SELECT 1 FROM bodies WHERE seq >= ? AND seq <= ? LIMIT 1',
  cutDedupe: 'UPDATE dedupe SET hash = ? WHERE queue = ? AND key = ?',
  keepDedupe: 'UPDATE dedupe SET ending = 0 WHERE queue = ? AND key = ?',
  removeDedupe: `DELETE FROM dedupe WHERE queue = ? AND key IN (${Array.from({ length: DEDUPE_REMOVED_AT_ONCE }, () => '?').join(', ')})`,
  // Only what is alone in its row.
  releaseDedupe: `DELETE FROM dedupe WHERE queue = ? AND key = ? AND seq = ? AND ${IS_ALONE} RETURNING ending`,

  addProbe: 'INSERT INTO probe (data) VALUES (zeroblob(?))',
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
