/** What `xmq dev` keeps in its folder: the accounts that were made, so that clients can log in again after a restart. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { mistake } from './exit.ts'

/** The queues of `xmq dev` where none is named. */
export const DEV_QUEUES: readonly string[] = ['queue1:any', 'queue2:all']

/** Where accounts are kept where no folder is named. */
export const DEV_FOLDER = './.xmq'

/** The accounts of one folder. */
export interface DevAccounts {
  /** Passwords by name, as they were when the folder was opened. */
  readonly known: Readonly<Record<string, string>>
  add(user: string, password: string): void
}

/**
 * Opens a folder, making it where there is none.
 * @throws XmqError `invalid-config` when it cannot be used
 */
export function openDevAccounts(directory: string): DevAccounts {
  const path = join(directory, 'accounts.json')
  const accounts = readAccounts(directory, path)
  return {
    known: Object.fromEntries(accounts),
    add: (user, password) => {
      accounts.set(user, password)
      // Renamed into place, so that a crash in the middle leaves the old file whole.
      writeFileSync(`${path}.new`, `${JSON.stringify(Object.fromEntries(accounts), undefined, 2)}\n`, { mode: 0o600 })
      renameSync(`${path}.new`, path)
    },
  }
}

function readAccounts(directory: string, path: string): Map<string, string> {
  let text: string
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Map()
    throw mistake(`--data: ${directory} cannot be used: ${(error as Error).message}. Name another folder.`)
  }
  try {
    const parsed: unknown = JSON.parse(text)
    const entries = Object.entries(parsed as Record<string, unknown>)
    return new Map(entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'))
  } catch {
    throw mistake(`--data: ${path} is damaged. Delete it, and accounts are made anew.`)
  }
}
