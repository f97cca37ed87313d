import { setTimeout as pause } from 'node:timers/promises'
import { nowMs } from '../journal.mjs'

/** How many leases long it does not run. */
const LEASES = 1.6

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'server-pause',
  fault: 'XMPP server stalled for longer than a lease (`SIGSTOP`, `SIGCONT`)',
  promise: 'nothing confirmed is lost; publishers wait; what could not be acked in time may be handled again',
  times: { whole: 10, short: 0 },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      await scene.fault('server stalled', 'server', async () => {
        scene.server.signal('SIGSTOP')
        await pause(scene.plan.leaseMs * LEASES)
        scene.server.signal('SIGCONT')
      })
      await scene.resume('server stalled', nowMs())
    }
  },
}
