/** A producer: asks for a price, places the order, and does so again until Ctrl-C. With --once, for four orders. */
import { setTimeout as pause } from 'node:timers/promises'
import { connect } from '@xmq/client'
import { orderPlaced, priceOf } from '@xmq-examples/worker/topics'

const {
  XMQ_SERVICE = 'xmpp://127.0.0.1:5222',
  XMQ_QUEUE = 'queue1.localhost',
  XMQ_JID = 'producer@localhost',
  XMQ_PASSWORD = 'producer',
} = process.env

const MENU = ['espresso', 'flat white', 'filter'] as const
const orders = process.argv.includes('--once') ? 4 : Number.POSITIVE_INFINITY

const mq = await connect({ service: XMQ_SERVICE, jid: XMQ_JID, password: XMQ_PASSWORD, queue: XMQ_QUEUE })

// A queue that keeps nothing tells afterwards that nobody was there.
mq.on('returned', ({ topic, error }) => console.log(`producer: ${topic} came back: ${error.message}`))

for (let number = 1; number <= orders; number++) {
  const drink = MENU[number % MENU.length] ?? 'espresso'
  const cups = 1 + (number % 4)

  const askedAt = performance.now()
  const { cents } = await mq.request(priceOf, { drink, cups }, { signal: AbortSignal.timeout(5_000) })
  const tookMs = performance.now() - askedAt
  console.log(
    `producer asked for a price: ${(cents / 100).toFixed(2)} € for ${cups} × ${drink}, in ${tookMs.toFixed(1)} ms`,
  )

  await mq.publish(orderPlaced, { number, drink, cups }, { id: `order-${number}` })
  console.log(`producer placed order ${number}`)
  if (number < orders) await pause(orders === Number.POSITIVE_INFINITY ? 1_000 : 50)
}

await mq.close()
