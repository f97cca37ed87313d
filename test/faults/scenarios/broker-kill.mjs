import { nowMs } from '../journal.mjs'

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'broker-kill',
  fault: 'broker killed (`kill -9`)',
  promise: 'nothing confirmed is lost; what was leased is settled late or comes again; service resumes by itself',
  times: { whole: 50, short: { prosody: 1, ejabberd: 1 } },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      let startedAt = 0
      await scene.fault('broker killed', 'broker', async () => {
        await scene.broker.kill()
        startedAt = nowMs()
        await scene.broker.start()
      })
      await scene.resume('broker killed', nowMs(), startedAt)
    }
  },
}
