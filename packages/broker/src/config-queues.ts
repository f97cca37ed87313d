/** The queues of a configuration: which addresses, of which type, for whom, with which bounds. docs/operating.md lists the keys. */
import { domainOf, TTL_SECONDS_MAX, WRITE_STANZA_BYTES_MAX } from '@xmq/protocol'
import { describeReliable, readReliable, RELIABLE_KEYS } from './config-reliable.ts'
import {
  formatDuration,
  formatSize,
  pathOf,
  type Problems,
  readAccess,
  readBareAddress,
  readBoolean,
  readChoice,
  readCount,
  readDuration,
  readMapping,
  readSection,
  readSize,
} from './config-values.ts'
import type { QueueRules } from './core/port.ts'

const SECOND_MS = 1000
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const QUEUES_MAX = 1000

const QUEUE_KEYS = [
  'type',
  'publish',
  'consume',
  'admins',
  'preserveFrom',
  'requestTimeout',
  'maxTtl',
  'maxPayload',
  'maxTopics',
  'maxSubscriptionsPerJid',
  ...RELIABLE_KEYS,
]

/** The queues of a configuration, by their addresses; what is wrong with any of them goes to `problems`. */
export function readQueues(
  value: unknown,
  isDurable: boolean,
  problems: Problems,
  warn: (text: string) => void,
): readonly QueueRules[] {
  if (value === undefined || value === null) {
    problems.add('queues', "is missing. Name at least one, such as 'queue1.localhost: { type: any }'.")
    return []
  }
  const section = readMapping(value, 'queues', problems)
  if (section.size === 0 && value instanceof Map) {
    problems.add('queues', "is empty. Name at least one, such as 'queue1.localhost: { type: any }'.")
  }
  if (section.size > QUEUES_MAX) problems.add('queues', `has ${section.size} queues; at most ${QUEUES_MAX} are served.`)
  const queues = new Map<string, QueueRules>()
  for (const [name, entry] of [...section].slice(0, QUEUES_MAX)) {
    const path = pathOf('queues', name)
    const address = readBareAddress(name, path, problems)
    if (address === undefined) continue
    if (queues.has(address)) problems.add(path, `is there twice: case does not tell addresses apart.`)
    const rules = readQueue(address, entry, path, isDurable, problems)
    queues.set(address, rules)
    for (const key of ['publish', 'consume'] as const) {
      if (rules[key].length === 0) warn(`${path}.${key}: is empty, so nobody may. Leave it out for the parent domain.`)
    }
  }
  return Object.freeze([...queues.values()])
}

function readQueue(address: string, value: unknown, path: string, isDurable: boolean, problems: Problems): QueueRules {
  const section = readSection(value ?? new Map(), path, QUEUE_KEYS, problems)
  const at = (key: string) => `${path}.${key}`
  const type = readChoice(section.get('type'), at('type'), ['any', 'all'] as const, problems)
  const optional = <T>(key: string, read: (entry: unknown, where: string) => T | undefined, fallback: T): T =>
    section.has(key) ? (read(section.get(key), at(key)) ?? fallback) : fallback
  const parent = parentDomain(address)
  if (parent === undefined && !(section.has('publish') && section.has('consume'))) problems.add(path, noParent(address))
  const access = (key: 'publish' | 'consume') =>
    section.has(key)
      ? (readAccess(section.get(key), at(key), problems) ?? [])
      : Object.freeze(parent === undefined ? [] : [parent])
  const count = (key: string, fallback: number) =>
    optional(key, (entry, where) => readCount(entry, where, 1, 10_000_000, problems), fallback)
  return Object.freeze({
    address,
    type: type ?? 'any',
    publish: access('publish'),
    consume: access('consume'),
    admins: optional('admins', (entry, where) => readAccess(entry, where, problems), Object.freeze([])),
    preserveFrom: optional('preserveFrom', (entry, where) => readBoolean(entry, where, problems), false),
    requestTimeoutMs: optional(
      'requestTimeout',
      (entry, where) => readDuration(entry, where, 100, HOUR_MS, problems),
      30 * SECOND_MS,
    ),
    ttlSecondsMax: Math.floor(
      optional(
        'maxTtl',
        (entry, where) => readDuration(entry, where, SECOND_MS, TTL_SECONDS_MAX * SECOND_MS, problems),
        DAY_MS,
      ) / SECOND_MS,
    ),
    payloadBytesMax: optional(
      'maxPayload',
      (entry, where) => readSize(entry, where, 1, WRITE_STANZA_BYTES_MAX, problems),
      WRITE_STANZA_BYTES_MAX,
    ),
    topicsMax: count('maxTopics', 10_000),
    subscriptionsPerJidMax: count('maxSubscriptionsPerJid', 1000),
    reliable: readReliable(section, path, isDurable, problems),
  })
}

/** A queue's domain stands below the server's, whose accounts may use it unless told otherwise. */
function noParent(address: string): string {
  const better = address.includes('@') ? address.replace('@', '@xmq.') : `${address}.localhost`
  return (
    `'${domainOf(address)}' has no parent domain, which may publish and consume where nobody is named. Write ${better} ` +
    "(below your server's domain), or say who may: publish, consume."
  )
}

/** `localhost` for `queue1.localhost` and `orders@queue1.localhost`; mod_xmq served only its own host. */
function parentDomain(address: string): string | undefined {
  const domain = domainOf(address)
  const dot = domain.indexOf('.')
  return dot === -1 ? undefined : domain.slice(dot + 1)
}

/** The effective rules of a queue in the file's own words and units. */
export function describeQueue(queue: QueueRules): Record<string, unknown> {
  return {
    type: queue.type,
    publish: queue.publish,
    consume: queue.consume,
    admins: queue.admins,
    preserveFrom: queue.preserveFrom,
    requestTimeout: formatDuration(queue.requestTimeoutMs),
    maxTtl: formatDuration(queue.ttlSecondsMax * SECOND_MS),
    maxPayload: formatSize(queue.payloadBytesMax),
    maxTopics: queue.topicsMax,
    maxSubscriptionsPerJid: queue.subscriptionsPerJidMax,
    ...describeReliable(queue.reliable),
  }
}
