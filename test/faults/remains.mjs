/** What is left of a run: dead letters, as an admin sees them, and what the store still has, once the broker is down. */
import { connect } from '@xmq/client'
import { createSqliteStore } from '@xmq/broker'
import { lineOf, QUEUE_ALL, QUEUE_ANY, SUBSCRIPTIONS } from './messages.mjs'

const PAGE = 500

/** Every dead letter of every line. */
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

/** What the store holds beside dead letters: after everything settled, nothing. */
export async function leftInStore(path) {
  const store = createSqliteStore({ path })
  await store.open(Date.now())
  try {
    const left = []
    const { subscriptions } = await store.subscriptions(QUEUE_ALL)
    const lines = [[QUEUE_ANY, ''], ...subscriptions.map(({ subscription }) => [QUEUE_ALL, subscription])]
    for (const [queue, subscription] of lines) {
      for (let after = 0; after !== undefined; ) {
        const page = await store.browse({ queue, subscription, after, max: PAGE, bodies: false })
        if (page.status !== 'ok') throw page.error
        for (const { seq, id, state, deliveries } of page.entries) {
          if (state !== 'dead') left.push({ queue, line: subscription, seq, id, state, deliveries })
        }
        after = page.next
      }
    }
    return left
  } finally {
    await store.close()
  }
}
