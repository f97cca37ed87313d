import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { ImageDisk, loopObstacle } from '../devices/mounts.mjs'
import { nowMs } from '../journal.mjs'
import { checkNoFlood, seesRecovery, seesTrouble } from '../operator.mjs'

const MEBIBYTES = 64
/** What the operator is told. A page that cannot be read is to SQLite one that is damaged. */
const GONE = { kind: 'file system gone', reason: /IOERR|CORRUPT|cannot be opened|read-only|READONLY/ }
const READONLY = { kind: 'disk read-only', reason: /read-only|READONLY|IOERR|cannot be opened/ }
/** How long the disk stays so once that is seen. */
const BROKEN_MS = 800
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
      const isGone = time % 2 === 0
      const { kind, reason } = isGone ? GONE : READONLY
      await scene.moment()
      await scene.fault(kind, 'store', async () => {
        if (isGone) disk.shutDown()
        else {
          await scene.broker.kill()
          disk.remount('ro')
          await scene.broker.start()
        }
        await seesTrouble(scene.broker, reason)
        await pause(BROKEN_MS)
        if (isGone) await disk.repair()
        else disk.remount('rw')
        await seesRecovery(scene.broker)
      })
      await scene.resume(kind, nowMs())
    }
    checkNoFlood(scene.broker, times)
  },
}
