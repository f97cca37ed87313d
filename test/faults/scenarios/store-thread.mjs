import { fileURLToPath } from 'node:url'
import { nowMs } from '../journal.mjs'
import { seesRecovery } from '../operator.mjs'
import { inTime } from '../patience.mjs'

const KILLER = fileURLToPath(new URL('../processes/thread-killer.mjs', import.meta.url))

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'store-thread',
  fault: "the store's thread terminated in the middle of its work, the broker not",
  promise:
    'what was on its way is refused with `wait`; the thread is started again and reads the file anew; where libsql aborts the process, as after a kill',
  times: { whole: 100, short: 0 },
  prepare(_scene, plan) {
    plan.env.NODE_OPTIONS = `${process.env.NODE_OPTIONS ?? ''} --import=${KILLER}`
  },
  async run(scene, times) {
    let aborts = 0
    let ended = 0
    for (let time = 0; time < times; time++) {
      await scene.moment()
      await scene.fault("the store's thread ended", 'store', async () => {
        scene.broker.signal('SIGUSR2')
        const isAlone = await inTime('the end of the thread', endOf(scene.broker, ++ended))
        if (!isAlone) {
          aborts++
          ended = 0
          await scene.broker.start()
        }
        await seesRecovery(scene.broker)
        await scene.flow('all go on', { confirmed: 1, finished: 1 })
      })
      await scene.resume("the store's thread ended", nowMs())
    }
    scene.note(`libsql found its thread terminated inside a call and aborted the process: ${aborts} of ${times} times`)
  },
}

/** @returns whether the thread ended, and the process goes on; `number`: of such ends in this life of the broker */
async function endOf(broker, number) {
  return await broker.line(new RegExp(`^thread ended, number ${number}$`)).then(
    () => true,
    () => false,
  )
}
