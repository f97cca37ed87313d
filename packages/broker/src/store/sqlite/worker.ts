/** The worker thread of the sqlite store: takes batches, runs them, answers. */
import { parentPort } from 'node:worker_threads'
import { XmqError } from '@xmq/protocol'
import { buffersOf, type FromWorker, type ToWorker } from './channel.ts'
import { type BatchAnswer, Engine } from './engine.ts'

const port = parentPort
let engine: Engine | undefined

function run(message: ToWorker): BatchAnswer | undefined {
  switch (message.type) {
    case 'open':
      engine = new Engine(message.options)
      return engine.open(message.now, message.isAgain)
    case 'run':
      return engine?.run(message.requests)
    default:
      engine?.close()
      return undefined
  }
}

port?.on('message', (message: ToWorker) => {
  let answer: FromWorker
  try {
    answer = { type: 'done', answer: run(message) }
  } catch (error) {
    const { code, message: why } = XmqError.from(error)
    answer = { type: 'failed', failure: { code, message: why } }
  }
  port.postMessage(answer, answer.type === 'done' ? (answer.answer?.answers ?? []).flatMap(buffersOf) : [])
})
