import { fileURLToPath } from 'node:url'
import { nowMs } from '../journal.mjs'
import { seesRecovery } from '../operator.mjs'

const KILLER = fileURLToPath(new URL('../processes/thread-killer.mjs', import.meta.url))

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'store-thread',
  fault: "the store's thread ended in the middle of its work, the broker not",
  promise:
    'what was on its way is refused with `wait`; the thread is started again and reads the file anew; nothing is lost',
  times: { whole: 100, short: 0 },
  prepare(_scene, plan) {
    plan.env.NODE_OPTIONS = `${process.env.NODE_OPTIONS ?? ''} --import=${KILLER}`
  },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      await scene.fault("the store's thread ended", 'store', async () => {
        scene.broker.signal('SIGUSR2')
        await seesRecovery(scene.broker)
        await scene.flow('all go on', { confirmed: 1, finished: 1 })
      })
      await scene.resume("the store's thread ended", nowMs())
    }
  },
}
