/**
 * The messages of the load: what a producer draws, writes into its journal, and could make again from there after it was killed.
 *
 * | fate | what its handler does | how it must end |
 * |---|---|---|
 * | ok | takes a few milliseconds | finished |
 * | slow | takes longer than a lease | finished |
 * | fail-once | throws at the first delivery | finished |
 * | fail-always | throws | dead, max-attempts |
 * | reject | throws `Reject` | dead, rejected |
 */
import { createHash } from 'node:crypto'

export const QUEUE_ANY = 'queue1.localhost'
export const QUEUE_ALL = 'queue2.localhost'
const TOPICS = ['work.a', 'work.b', 'work.c']
/** What every worker subscribes to. */
export const PATTERN = 'work.*'
/** The durable subscriptions of {@link QUEUE_ALL}: a name, and whose it is. */
export const SUBSCRIPTIONS = [
  { name: 'billing', account: 'crew1' },
  { name: 'audit', account: 'crew2' },
]
/** How a subscription is named in journals: the queue's own line is ''. */
export const lineOf = ({ name, account }) => `${account}/${name}`
/** The lines that a message of a queue is stored for. */
export const linesOf = (queue) => (queue === QUEUE_ALL ? SUBSCRIPTIONS.map(lineOf) : [''])

const KEYS = 6
const PAD_MAX = 400

/**
 * @typedef {{ queue: string, id: string, topic: string, fate: string, pad: number, key?: string, priority?: number,
 *   delayMs?: number, ttlMs?: number }} Message
 */

/** Draws a message. @param {{ hasSlow: boolean }} options @returns {Message} */
export function drawMessage(random, id, { hasSlow }) {
  const queue = random.chance(0.2) ? QUEUE_ALL : QUEUE_ANY
  const message = { queue, id, topic: random.pick(TOPICS), fate: drawFate(random, hasSlow), pad: random.int(PAD_MAX) }
  if (random.chance(0.4)) return { ...message, key: `k${random.int(KEYS)}` }
  if (random.chance(0.05)) return { ...message, delayMs: 50 + random.int(400) }
  if (random.chance(0.02)) return { ...message, ttlMs: 5000 }
  if (random.chance(0.2)) return { ...message, priority: random.int(10) }
  return message
}

function drawFate(random, hasSlow) {
  const at = random.unit()
  if (at < 0.002) return 'fail-always'
  if (at < 0.007) return 'reject'
  if (at < 0.03) return 'fail-once'
  return hasSlow && at < 0.034 ? 'slow' : 'ok'
}

/** What is published. @param {Message} message */
export function payloadOf({ id, fate, pad }) {
  return { id, fate, pad: 'x'.repeat(pad) }
}

/** Names a payload, byte for byte. */
export function sumOf(payload) {
  return createHash('sha1').update(JSON.stringify(payload)).digest('base64').slice(0, 10)
}

/** As `publish` takes them. @param {Message} message */
export function optionsOf({ id, key, priority, delayMs, ttlMs }) {
  return {
    id,
    ...(key === undefined ? {} : { key }),
    ...(priority === undefined ? {} : { priority }),
    ...(delayMs === undefined ? {} : { delay: delayMs }),
    ...(ttlMs === undefined ? {} : { ttl: ttlMs }),
  }
}
