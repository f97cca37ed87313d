import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { mountObstacle, SmallDisk } from '../devices/mounts.mjs'
import { nowMs } from '../journal.mjs'
import { checkNoFlood, seesRecovery, seesTrouble } from '../operator.mjs'

/** Three times what the log and the file of a whole run take: it is to be full of something else. */
const DISK_BYTES = 96 * 1024 * 1024
/** How long the disk stays full. */
const FULL_MS = 1500

let disk

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'disk-full',
  fault: 'disk full (a small tmpfs), then space again',
  promise:
    'publishes are refused with `wait` and retried; nothing is confirmed that is not stored; `/readyz` and the log say so once; it goes on by itself',
  times: { whole: 20, short: { prosody: 1 } },
  obstacle: mountObstacle,
  prepare(scene, plan) {
    disk = new SmallDisk(join(scene.folder, 'disk'), DISK_BYTES)
    scene.afterwards(() => disk.close())
    plan.storePath = join(disk.path, 'xmq.db')
    plan.config.store = `sqlite:${plan.storePath}`
  },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      await scene.fault('disk full', 'store', async () => {
        // Now and then a commit finds some space, and then none.
        disk.fill(scene.random.chance(0.5) ? 0 : scene.random.int(40_000))
        await seesTrouble(scene.broker, /is full/)
        await pause(FULL_MS)
        disk.clear()
        await seesRecovery(scene.broker)
      })
      await scene.resume('disk full', nowMs())
    }
    // Where some bytes are left, a small commit may find room behind a large one that did not.
    checkNoFlood(scene.broker, times * 2)
  },
}
