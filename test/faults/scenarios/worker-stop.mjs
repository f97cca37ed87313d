import { setTimeout as pause } from 'node:timers/promises'

/** How many leases long it is stopped. */
const LEASES = 1.6

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'worker-stop',
  fault: 'worker stopped beyond its lease (`SIGSTOP`, `SIGCONT`)',
  promise:
    'what it held goes to another worker when the lease is over; its late acks count only where nobody else has the message',
  times: { whole: 20, short: { prosody: 0, ejabberd: 1 } },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      const worker = scene.random.pick(scene.workers)
      const finished = `finished ${worker.name}.${worker.life}`
      await scene.fault('worker stopped', worker.name, async () => {
        worker.signal('SIGSTOP')
        // The fault itself: it lasts longer than what the worker holds is leased for.
        await pause(scene.plan.leaseMs * LEASES)
        await scene.flow('others go on while it is stopped', { confirmed: 1, finished: 1 })
        const before = scene.ledger.count(finished)
        worker.signal('SIGCONT')
        await scene.until(`${worker.name} working again`, () =>
          scene.ledger.count(finished) > before + 5 ? true : undefined,
        )
      })
    }
  },
}
