import { nowMs } from '../journal.mjs'

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'server-kill',
  fault: 'XMPP server killed (`kill -9`) and started again',
  promise: 'nothing confirmed is lost; broker, workers and producers come back by themselves',
  times: { whole: 20, short: { prosody: 1, ejabberd: 0 } },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      let startedAt = 0
      await scene.fault('server killed', 'server', async () => {
        await scene.server.kill()
        startedAt = nowMs()
        await scene.server.start()
      })
      await scene.resume('server killed', nowMs(), startedAt)
    }
  },
}
