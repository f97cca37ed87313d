/** The worker thread of the sqlite store: takes batches, runs them, answers. */
import { parentPort } from 'node:worker_threads'
import { XmqError } from '@xmq/protocol/errors'
import { buffersOf, type FromWorker, type ToWorker } from './channel.ts'
import { type BatchAnswer, Engine } from './engine.ts'

const port = parentPort
let engine: Engine | undefined

async function run(message: ToWorker): Promise<BatchAnswer | undefined> {
  switch (message.type) {
    case 'open':
      engine = new Engine(message.options)
      return engine.open(message.now, message.isAgain)
    case 'run':
      return await engine?.run(message.requests)
    case 'end':
      return process.exit()
    default:
      engine?.close()
      return undefined
  }
}

function answer(message: FromWorker): void {
  port?.postMessage(message, message.type === 'done' ? (message.answer?.answers ?? []).flatMap(buffersOf) : [])
}

port?.on('message', (message: ToWorker) => {
  run(message).then(
    (batch) => answer({ type: 'done', answer: batch }),
    (error: unknown) => {
      const { code, message: why } = XmqError.from(error)
      answer({ type: 'failed', failure: { code, message: why } })
    },
  )
})
