import { nowMs } from '../journal.mjs'

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'server-stop',
  fault: 'XMPP server restarted in order (SIGTERM)',
  promise: 'as after a kill',
  times: { whole: 10, short: 0 },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      let startedAt = 0
      await scene.fault('server restarted', 'server', async () => {
        await scene.server.stop()
        startedAt = nowMs()
        await scene.server.start()
      })
      await scene.resume('server restarted', nowMs(), startedAt)
    }
  },
}
