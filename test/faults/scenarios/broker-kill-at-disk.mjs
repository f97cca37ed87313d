import { join } from 'node:path'
import { inject, straceObstacle, SYNC } from '../devices/strace.mjs'
import { nowMs } from '../journal.mjs'

/** Where in the store's work the broker dies: entering the N-th such call on such a file. */
const PLACES = [
  { call: SYNC, suffix: '-wal', most: 4 },
  { call: 'pwrite64', suffix: '-wal', most: 60 },
  { call: 'pwrite64', suffix: '', most: 200 },
  { call: SYNC, suffix: '', most: 1 },
]

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'kill-at-disk',
  fault: 'broker killed inside a commit or a checkpoint, at a drawn `pwrite64` or `fsync` of its store (strace)',
  promise: 'nothing confirmed is lost; a commit is there as a whole or not at all; service resumes by itself',
  times: { whole: 60, short: 1 },
  obstacle: straceObstacle,
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      const { call, suffix, most } = PLACES[time % PLACES.length]
      await scene.moment()
      let startedAt = 0
      await scene.fault(`broker killed at ${call === SYNC ? 'fsync' : 'write'}`, 'broker', async () => {
        const injection = `${call}:signal=SIGKILL:when=${1 + scene.random.int(most)}`
        const log = join(scene.folder, `strace.${time}.txt`)
        const tracer = await inject(scene.broker.pid, [injection], [`${scene.plan.storePath}${suffix}`], log)
        await scene.broker.exited
        await tracer.exited
        startedAt = nowMs()
        await scene.broker.start()
      })
      await scene.resume('broker killed', nowMs(), startedAt)
    }
  },
}
