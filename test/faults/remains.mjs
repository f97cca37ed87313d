/** What is left of a run: dead letters, as an admin sees them, and what is in the store once the broker is down, which is the truth. */
import { connect } from '@xmq/client'
import { createSqliteStore } from '@xmq/broker'
import { lineOf, QUEUE_ALL, QUEUE_ANY, SUBSCRIPTIONS } from './messages.mjs'

const PAGE = 500

/** Every dead letter of every line, as the queues list them. */
export async function deadLetters({ service, jid, password, domain }) {
  const dead = []
  for (const queue of [QUEUE_ANY, QUEUE_ALL]) {
    const client = await connect({
      service,
      jid,
      password,
      queue,
      backoff: { base: '200ms', max: '1s' },
      connectTimeout: '2m',
    })
    try {
      const lines =
        queue === QUEUE_ANY
          ? [{ line: '', query: {} }]
          : SUBSCRIPTIONS.map((one) => ({
              line: lineOf(one),
              query: { subscription: one.name, owner: `${one.account}@${domain}` },
            }))
      for (const { line, query } of lines) {
        for await (const { seq, id, reason, failures, deliveries } of client.deadLetters.list({
          ...query,
          pageSize: PAGE,
        })) {
          dead.push({ queue, line, seq, id, reason, failures, deliveries })
        }
      }
    } finally {
      await client.close()
    }
  }
  return dead
}

/**
 * What the store holds when its broker is down: dead letters, and after everything settled nothing else.
 *
 * @returns {Promise<{ dead: object[], left: object[] }>}
 */
export async function readStore(path, domain) {
  const store = createSqliteStore({ path })
  await store.open(Date.now())
  try {
    const dead = []
    const left = []
    const { subscriptions } = await store.subscriptions(QUEUE_ALL)
    const lines = [[QUEUE_ANY, ''], ...subscriptions.map(({ subscription }) => [QUEUE_ALL, subscription])]
    for (const [queue, subscription] of lines) {
      const line = subscription.replace(`@${domain}/`, '/')
      for (let after = 0; after !== undefined; ) {
        const page = await store.browse({ queue, subscription, after, max: PAGE, bodies: false })
        if (page.status !== 'ok') throw page.error
        for (const { seq, id, state, reason, failures, deliveries } of page.entries) {
          if (state === 'dead') dead.push({ queue, line, seq, id, reason, failures, deliveries })
          else left.push({ queue, line, seq, id, state, deliveries })
        }
        after = page.next
      }
    }
    return { dead, left }
  } finally {
    await store.close()
  }
}
