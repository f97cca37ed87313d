/** amqplib: a connection and a channel each; durable queues, persistent messages, publisher confirms, manual acks. */
import { connect } from 'amqplib'

async function openChannel({ url, queue, arguments: args }, create) {
  const connection = await connect(url, { noDelay: true })
  const channel = await create(connection)
  await channel.assertQueue(queue, { durable: true, arguments: args })
  return { connection, channel }
}

/** A connection that publishes; each message resolves on its confirm. */
export async function openProducer(options) {
  const { connection, channel } = await openChannel(options, (opened) => opened.createConfirmChannel())
  const { queue } = options
  const publish = (payload) =>
    new Promise((resolve, reject) => {
      const content = Buffer.from(JSON.stringify(payload))
      channel.sendToQueue(queue, content, { persistent: true }, (error) => (error === null ? resolve() : reject(error)))
    })
  return {
    publish,
    publishMany: (payloads) => Promise.all(payloads.map(publish)),
    close: () => connection.close(),
  }
}

/** A consumer with a prefetch. */
export async function openWorker(options, handle) {
  const { connection, channel } = await openChannel(options, (opened) => opened.createChannel())
  await channel.prefetch(options.unacked)
  await channel.consume(options.queue, async (message) => {
    await handle(JSON.parse(message.content.toString()))
    channel.ack(message)
  })
  return { close: () => connection.close() }
}
