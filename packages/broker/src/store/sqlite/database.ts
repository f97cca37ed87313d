/**
 * Opening the file of the sqlite store: the lock, the checks, the schema and its migrations.
 *
 * - `locking_mode=EXCLUSIVE` takes the lock of the file with the first write and keeps it until the connection is closed
 *   or its process is dead, so two brokers can never have one file open, and WAL needs no shared memory.
 * - Text is stored as BLOB everywhere: libsql ends the process when a TEXT column holds what is not UTF-8, as a damaged file
 *   may.
 * - A log that is found is written again, byte by byte, before anything is done on its word: SQLite believes what the kernel has
 *   in memory, and after an fsync that failed in the process before us this may be more than what is on the disk.
 * - A page that cannot be read is an error: {@link urlOf}.
 * - `user_version` is the schema's version, `application_id` says that the file is ours.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, resolve } from 'node:path'
import { XmqError } from '@xmq/protocol/errors'
import Database from 'libsql'
import { MIGRATIONS, SCHEMA_VERSION } from './schema.ts'

export type Connection = InstanceType<typeof Database>

/** How the file is used; all but `path` has a default. */
export interface SqliteFileOptions {
  readonly path: string
  /** `FULL`: nothing confirmed is lost in a power cut (log-sync.ts). `OFF` is for tests. @default 'FULL' */
  readonly synchronous?: 'FULL' | 'OFF'
  /** Never make the file: it was there before. @default false */
  readonly mustExist?: boolean
  /** Bytes of pages kept in memory. @default 64 MiB */
  readonly cacheBytes?: number
  /** Pages of the log after which it is copied into the file. @default 4000 (16 MB) */
  readonly checkpointPages?: number
}

/** @default of {@link SqliteFileOptions.checkpointPages} */
export const CHECKPOINT_PAGES = 4000

/** "XMQ1": what `file` and other tools may tell the file by. */
const APPLICATION_ID = 0x584d5131

/** What SQLite calls an error of the system. */
const SQLITE_CODES: Readonly<Record<string, string>> = {
  ENOSPC: 'SQLITE_FULL',
  EDQUOT: 'SQLITE_FULL',
  EIO: 'SQLITE_IOERR',
  EROFS: 'SQLITE_READONLY',
  ENOMEM: 'SQLITE_NOMEM',
}

/** Names of SQLite's primary codes, for extended ones that libsql has no name for. */
const PRIMARY_CODES: Readonly<Record<number, string>> = {
  5: 'SQLITE_BUSY',
  7: 'SQLITE_NOMEM',
  8: 'SQLITE_READONLY',
  10: 'SQLITE_IOERR',
  11: 'SQLITE_CORRUPT',
  13: 'SQLITE_FULL',
  14: 'SQLITE_CANTOPEN',
}

/** The code of an error of SQLite, or of one of the disk in SQLite's words; `''` for any other. */
export function sqliteCode(error: unknown): string {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return ''
  if (error.code.startsWith('SQLITE_')) return error.code
  if (!('rawCode' in error) || typeof error.rawCode !== 'number') return SQLITE_CODES[error.code] ?? ''
  return PRIMARY_CODES[error.rawCode & 0xff] ?? 'SQLITE_ERROR'
}

/**
 * Opens the file, makes it when it is not there, brings it to this version.
 *
 * @throws XmqError `conflict` or `invalid-config` when no waiting mends it; anything else as SQLite threw it
 */
export function openDatabase(options: SqliteFileOptions): Connection {
  const db = connect(options)
  try {
    prepareFile(db, options)
    return db
  } catch (error) {
    db.close()
    throw explain(error, options.path)
  }
}

/**
 * Copies the log into the file and closes it. `close()` alone would keep the lock until the garbage collector comes for the
 * prepared statements, so the lock is given up first, which SQLite allows only out of WAL.
 */
export function closeDatabase(db: Connection, path: string): void {
  try {
    db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    db.exec('PRAGMA journal_mode = DELETE')
    db.exec('PRAGMA locking_mode = NORMAL')
    db.exec('SELECT count(*) FROM sqlite_schema')
  } catch {
    // The log stays beside the file and is read when that is opened again; the lock goes with the thread.
  }
  rmSync(pidFileOf(path), { force: true })
  db.close()
}

const pidFileOf = (path: string) => `${path}.pid`

function connect({ path, mustExist = false }: SqliteFileOptions): Connection {
  try {
    if (!mustExist) makeFolder(dirname(resolve(path)))
  } catch (error) {
    throw explain(error, path)
  }
  try {
    return new Database(urlOf(path, mustExist ? 'rw' : 'rwc'))
  } catch (error) {
    // libsql gives no code here, but SQLite's number at the end of a text of its own.
    const number = Number(/: (\d+)$/.exec(error instanceof Error ? error.message.replace(/"\)$/, '') : '')?.[1])
    const code = PRIMARY_CODES[number & 0xff]
    if (code !== undefined && code !== 'SQLITE_CANTOPEN')
      throw Object.assign(new Error('it cannot be opened'), { code })
    const why = mustExist && !existsSync(path) ? 'it is not there any more' : 'SQLite cannot open it'
    throw cannotOpen(path, why, error)
  }
}

/** One by one: what Node calls `recursive` goes round for ever where a file system takes no folders, as /proc. */
function makeFolder(folder: string): void {
  if (existsSync(folder)) return
  makeFolder(dirname(folder))
  try {
    mkdirSync(folder)
  } catch (error) {
    if (!existsSync(folder)) throw error
  }
}

function cannotOpen(path: string, why: string, cause: unknown): XmqError {
  return new XmqError(
    'invalid-config',
    `store: ${path} cannot be opened: ${why}. Check the directory, its rights, and that its file system is mounted.`,
    { cause },
  )
}

/**
 * The file, to be read and written by SQLite's own file layer. The one that libsql puts above it, for encryption, takes a read
 * that failed for one that worked: the page is then what the memory held before, and a checkpoint writes that into the file.
 */
function urlOf(path: string, mode: 'rw' | 'rwc'): string {
  return `file:${resolve(path).replace(/[%?#]/g, encodeURIComponent)}?vfs=unix&mode=${mode}`
}

const pragmaOf = (db: Connection, name: string) => Number(db.prepare(`PRAGMA ${name}`).raw().all()[0]?.toString())

const tablesOf = (db: Connection) => Number(db.prepare('SELECT count(*) FROM sqlite_schema').raw().all()[0]?.toString())

function prepareFile(db: Connection, options: SqliteFileOptions): void {
  const { path, synchronous = 'FULL', cacheBytes = 64 * 1024 * 1024, checkpointPages = CHECKPOINT_PAGES } = options
  db.exec('PRAGMA locking_mode = EXCLUSIVE')
  db.exec('PRAGMA temp_store = MEMORY')
  db.exec(`PRAGMA cache_size = -${Math.ceil(cacheBytes / 1024)}`)
  const version = pragmaOf(db, 'user_version')
  const isOurs = pragmaOf(db, 'application_id') === APPLICATION_ID
  // One that has nothing in it may be ours: a broker that ended while it made it leaves it so.
  if (!isOurs && (version !== 0 || tablesOf(db) > 0)) {
    throw new XmqError(
      'invalid-config',
      `store: ${path} is a database, but not one of XMQ's. Name another file, or one that does not exist yet.`,
    )
  }
  if (version > SCHEMA_VERSION) {
    throw new XmqError(
      'invalid-config',
      `store: ${path} was written by a newer XMQ (schema ${version}; this one knows ${SCHEMA_VERSION}). Run that version, or name another file.`,
    )
  }
  db.exec('PRAGMA journal_mode = WAL')
  db.exec(`PRAGMA synchronous = ${synchronous}`)
  db.exec(`PRAGMA wal_autocheckpoint = ${checkpointPages}`)
  // A write, whatever the version: it takes the lock, and shows at once when the file is read-only.
  db.exec('BEGIN IMMEDIATE')
  try {
    rewriteLog(path)
    for (const step of MIGRATIONS.slice(version)) step(db)
    db.exec(`PRAGMA application_id = ${APPLICATION_ID}`)
    db.exec(`PRAGMA user_version = ${SCHEMA_VERSION}`)
    db.exec('DELETE FROM topics WHERE ready + delayed + leased + dead = 0')
    db.exec('COMMIT')
  } catch (error) {
    if (db.inTransaction) db.exec('ROLLBACK')
    throw error
  }
  // From here on the engine syncs the log itself: log-sync.ts.
  if (synchronous === 'FULL') db.exec('PRAGMA synchronous = NORMAL')
  writePid(path)
}

/** Writes the log over itself and syncs it. The lock of the database is held: nobody else writes there. */
function rewriteLog(path: string): void {
  let file: number
  try {
    file = openSync(`${path}-wal`, 'r+')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return
    throw error
  }
  try {
    const piece = Buffer.allocUnsafe(1024 * 1024)
    let at = 0
    for (let size = readSync(file, piece, 0, piece.length, at); size > 0; ) {
      for (let done = 0; done < size; ) done += writeSync(file, piece, done, size - done, at + done)
      at += size
      size = readSync(file, piece, 0, piece.length, at)
    }
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

/** For the message of the next broker that tries; without it that one says less. */
function writePid(path: string): void {
  try {
    writeFileSync(pidFileOf(path), String(process.pid))
  } catch {
    // Nothing depends on it.
  }
}

function readPid(path: string): string {
  try {
    const pid = readFileSync(pidFileOf(path), 'latin1')
    return /^\d{1,10}$/.test(pid) ? `process ${pid}` : 'another process'
  } catch {
    return 'another process'
  }
}

/** What no waiting mends, in words; the rest as it is. */
function explain(error: unknown, path: string): unknown {
  const code = sqliteCode(error)
  const cause = { cause: error }
  if (code.startsWith('SQLITE_BUSY')) {
    return new XmqError(
      'conflict',
      `store: ${path} is in use by ${readPid(path)}. Stop that broker, or name another file.`,
      cause,
    )
  }
  if (code === 'SQLITE_NOTADB') {
    return new XmqError('invalid-config', `store: ${path} is no SQLite database. Name another file.`, cause)
  }
  if (code.startsWith('SQLITE_CANTOPEN') || (code === '' && error instanceof Error && 'syscall' in error)) {
    return cannotOpen(path, error instanceof Error ? error.message : String(error), error)
  }
  return error
}
