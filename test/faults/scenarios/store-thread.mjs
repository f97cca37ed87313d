import { fileURLToPath } from 'node:url'
import { nowMs } from '../journal.mjs'
import { seesRecovery } from '../operator.mjs'

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
    for (let time = 0; time < times; time++) {
      await scene.moment()
      await scene.fault("the store's thread ended", 'store', async () => {
        scene.broker.signal('SIGUSR2')
        const recovered = recovers(scene)
        // Whoever is late then is late for a process that is no more.
        recovered.catch(() => undefined)
        const isAborted = await Promise.race([scene.broker.exited.then(() => true), recovered.then(() => false)])
        if (!isAborted) return
        aborts++
        await scene.broker.start()
        await recovers(scene)
      })
      await scene.resume("the store's thread ended", nowMs())
    }
    scene.note(`libsql found its thread terminated inside a call and aborted the process: ${aborts} of ${times} times`)
  },
}

async function recovers(scene) {
  await seesRecovery(scene.broker)
  await scene.flow('all go on', { confirmed: 1, finished: 1 })
}
