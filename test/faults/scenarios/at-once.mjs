import { setTimeout as pause } from 'node:timers/promises'
import { nowMs } from '../journal.mjs'

/** How far apart the faults of one round begin. */
const SPREAD_MS = 600

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'at-once',
  fault: 'broker, server, a worker and a producer killed within the same second',
  promise: 'the same as for each of them alone',
  times: { whole: 15, short: 0 },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      const worker = scene.random.pick(scene.workers)
      const producer = scene.random.pick(scene.producers)
      const round = [
        () => restart(scene, 'broker killed', 'broker', scene.broker),
        () => restart(scene, 'worker killed', worker.name, worker),
        () => restart(scene, 'producer killed', producer.name, producer),
        ...(scene.random.chance(0.5) ? [() => restart(scene, 'server killed', 'server', scene.server)] : []),
      ]
      await Promise.all(
        round.map(async (act) => {
          await pause(scene.random.unit() * SPREAD_MS)
          await act()
        }),
      )
      await Promise.all([scene.ready(worker), scene.ready(producer)])
      await scene.resume('all at once', nowMs())
    }
  },
}

function restart(scene, kind, victim, it) {
  return scene.fault(kind, victim, async () => {
    await it.kill()
    await it.start()
  })
}
