/** What `xmq pub` says of its messages beside topic and payload: the SDK's publish options. docs/protocol-reliable.md "Publishing". */
import type { PublishOptions } from '@xmq/client'
import { assertHeaders, DELAY_MS_MAX, ID_BYTES_MAX, KEY_BYTES_MAX, PRIORITY_MAX, XmqError } from '@xmq/protocol'
import { assertName, assertReliable, type ClientMode, durationOf } from './client-flags.ts'
import { mistake } from './exit.ts'

/** Flags that say more of a message. */
export interface PublishFlags {
  readonly id?: string
  readonly delay?: string
  readonly ttl?: string
  readonly priority?: string
  readonly key?: string
  readonly header?: readonly string[]
  readonly lines?: boolean
  readonly mode?: ClientMode
}

/** What a plain queue does not know. */
const RELIABLE_FLAGS = ['delay', 'ttl', 'priority', 'key'] as const

/**
 * The options of each message.
 * @throws XmqError `invalid-config` naming the flag and how to mend it
 */
export function publishOptionsOf(flags: PublishFlags): PublishOptions {
  const { id, key, mode } = flags
  if (id !== undefined && flags.lines === true) {
    throw mistake(
      '--id: the lines of stdin are many messages, and an id is for one. Leave it out, or publish one by one.',
    )
  }
  for (const flag of RELIABLE_FLAGS) {
    if (flags[flag] !== undefined) assertReliable(`--${flag}`, mode)
  }
  if (id !== undefined) assertName('--id', id, ID_BYTES_MAX)
  if (key !== undefined) assertName('--key', key, KEY_BYTES_MAX)
  const year = { max: DELAY_MS_MAX, longest: '365d' }
  const delay = flags.delay === undefined ? 0 : durationOf('--delay', flags.delay, { ...year, min: 0 })
  const ttl = flags.ttl === undefined ? undefined : durationOf('--ttl', flags.ttl, year)
  if (ttl !== undefined && delay >= ttl) {
    throw mistake(`--delay: ${flags.delay} is not less than --ttl ${flags.ttl}: the message would never be delivered.`)
  }
  return {
    ...(id === undefined ? {} : { id }),
    ...(key === undefined ? {} : { key }),
    ...(delay === 0 ? {} : { delay }),
    ...(ttl === undefined ? {} : { ttl }),
    ...(flags.priority === undefined ? {} : { priority: priorityOf(flags.priority) }),
    ...(flags.header === undefined ? {} : { headers: headersOf(flags.header) }),
  }
}

function priorityOf(text: string): number {
  const priority = Number(text)
  if (/^\d{1,2}$/.test(text) && priority <= PRIORITY_MAX) return priority
  throw mistake(
    `--priority: '${text}' is none. Give a number from 0 to ${PRIORITY_MAX}; ${PRIORITY_MAX} is delivered first.`,
  )
}

function headersOf(given: readonly string[]): Readonly<Record<string, string>> {
  const headers = new Map<string, string>()
  for (const text of given) {
    const at = text.indexOf('=')
    if (at < 1) throw mistake(`--header: '${text}' is none. Write NAME=VALUE, such as --header traceparent=00-4bf9-01.`)
    const name = text.slice(0, at)
    if (headers.has(name)) throw mistake(`--header: '${name}' stands twice. Give each name once.`)
    headers.set(name, text.slice(at + 1))
  }
  try {
    assertHeaders(headers)
  } catch (error) {
    throw mistake(`--header: ${XmqError.from(error).message}`)
  }
  return Object.fromEntries(headers)
}
