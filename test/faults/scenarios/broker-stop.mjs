import { nowMs } from '../journal.mjs'

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'broker-stop',
  fault: 'broker restarted in order (SIGTERM)',
  promise: 'as after a kill; it ends with exit code 0',
  times: { whole: 20, short: 0 },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      let startedAt = 0
      await scene.fault('broker restarted', 'broker', async () => {
        const code = await scene.broker.stop()
        if (code !== 0) throw new Error(`The broker ended with ${code} on SIGTERM.`)
        startedAt = nowMs()
        await scene.broker.start()
      })
      await scene.resume('broker restarted', nowMs(), startedAt)
    }
  },
}
