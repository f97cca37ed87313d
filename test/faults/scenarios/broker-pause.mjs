import { setTimeout as pause } from 'node:timers/promises'
import { nowMs } from '../journal.mjs'

/** How many leases long it does not run. */
const LEASES = 1.6

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'broker-pause',
  fault: 'broker stopped for longer than a lease (`SIGSTOP`, `SIGCONT`: a machine that slept)',
  promise: 'nothing confirmed is lost; acks that came meanwhile count where nobody else has the message',
  times: { whole: 10, short: 0 },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      await scene.fault('broker stopped', 'broker', async () => {
        scene.broker.signal('SIGSTOP')
        await pause(scene.plan.leaseMs * LEASES)
        scene.broker.signal('SIGCONT')
      })
      await scene.resume('broker stopped', nowMs())
    }
  },
}
