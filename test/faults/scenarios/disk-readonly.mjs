import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { ImageDisk, loopObstacle } from '../devices/mounts.mjs'
import { nowMs } from '../journal.mjs'
import { checkNoFlood, seesRecovery, seesTrouble } from '../operator.mjs'

const MEBIBYTES = 64
/** How long the disk stays read-only once that is seen. */
const READONLY_MS = 800
let disk

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'disk-readonly',
  fault:
    'file system gone under load (ext4 shut down), then unmounted, checked and mounted again; or read-only before the broker starts',
  promise:
    'publishes are refused with `wait`; the broker stays up, or starts and waits; it never makes another file; it goes on by itself',
  times: { whole: 20, short: 0 },
  obstacle: loopObstacle,
  prepare(scene, plan) {
    disk = new ImageDisk(join(scene.folder, 'disk'), join(scene.folder, 'disk.img'), MEBIBYTES)
    scene.afterwards(() => disk.close())
    plan.storePath = join(disk.path, 'xmq.db')
    plan.config.store = `sqlite:${plan.storePath}`
  },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      await scene.fault('disk read-only', 'store', async () => {
        if (time % 2 === 0) disk.shutDown()
        else {
          await scene.broker.kill()
          disk.remount('ro')
          await scene.broker.start()
        }
        await seesTrouble(scene.broker, /read-only|READONLY|IOERR|cannot be opened/)
        await pause(READONLY_MS)
        if (time % 2 === 0) await disk.repair()
        else disk.remount('rw')
        await seesRecovery(scene.broker)
      })
      await scene.resume('disk read-only', nowMs())
    }
    checkNoFlood(scene.broker, times)
  },
}
