import { setTimeout as pause } from 'node:timers/promises'

/** So many are down at a time, of four. */
const TOGETHER = 2
/** How far apart they are killed. */
const SPREAD_MS = 300

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'worker-kill',
  fault: 'worker killed (`kill -9`), two at a time',
  promise: 'what it held goes to another worker at once',
  times: { whole: 200, short: { prosody: 2, ejabberd: 2 } },
  async run(scene, times) {
    for (let time = 0; time < times; time += TOGETHER) {
      await scene.moment()
      const first = scene.random.int(scene.workers.length)
      const killed = Array.from({ length: Math.min(TOGETHER, times - time) }, (_, at) =>
        kill(scene, scene.workers[(first + at) % scene.workers.length], scene.random.unit() * SPREAD_MS),
      )
      await Promise.all(killed)
      await scene.flow('others go on', { confirmed: 1, finished: 1 })
    }
  },
}

async function kill(scene, worker, afterMs) {
  await pause(afterMs)
  await scene.fault('worker killed', worker.name, async () => {
    await worker.kill()
    await worker.start()
    await scene.ready(worker)
  })
}
