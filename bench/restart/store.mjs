/** Looks into, and fills, stores whose broker is down. */
import { createSqliteStore } from '@xmq/broker'
import { QUEUE_ALL, QUEUE_ANY } from '../../test/faults/messages.mjs'

const PAGE = 500
const FILL = 1000

async function withStore(path, options, use) {
  const store = createSqliteStore({ path, ...options })
  await store.open(Date.now())
  try {
    return await use(store)
  } finally {
    await store.close()
  }
}

/** What is leased: `queue line seq`, as journals name it. */
export async function leasedIn(path, domain) {
  return await withStore(path, { synchronous: 'OFF' }, async (store) => {
    const { subscriptions } = await store.subscriptions(QUEUE_ALL)
    const leased = []
    for (const [queue, subscription] of [
      [QUEUE_ANY, ''],
      ...subscriptions.map((one) => [QUEUE_ALL, one.subscription]),
    ]) {
      for (let after = 0; after !== undefined; ) {
        const page = await store.leases({ queue, subscription, after, max: PAGE })
        if (page.status !== 'ok') throw page.error
        for (const { seq } of page.entries) leased.push(`${queue} ${subscription.replace(`@${domain}/`, '/')} ${seq}`)
        after = page.next
      }
    }
    return leased
  })
}

/** Puts messages into a queue, in topics that nobody subscribes to. */
export async function fill(path, count) {
  await withStore(path, { synchronous: 'OFF' }, async (store) => {
    const message = {
      type: 'publish',
      queue: QUEUE_ANY,
      sender: 'shop1@localhost',
      priority: 0,
      dedupeMs: 600_000,
      dedupeMax: 1_000_000,
    }
    const none = { key: undefined, delayUntil: undefined, expiresAt: undefined, grant: undefined }
    const targets = [{ subscription: '', maxLength: 10_000_000, maxBytes: 1e12, whenFull: 'refuse' }]
    for (let at = 0; at < count; at += FILL) {
      const ops = Array.from({ length: Math.min(FILL, count - at) }, (_, place) => ({
        ...message,
        ...none,
        targets,
        id: `waiting-${at + place}`,
        topic: `waiting.${(at + place) % 100}`,
        body: `<json xmlns='urn:xmpp:json:0'>"${'x'.repeat(500)}"</json>`,
        meta: '{}',
      }))
      const [first] = await store.apply(ops, Date.now())
      if (first.status !== 'ok') throw first.error ?? new Error(first.status)
    }
  })
}
