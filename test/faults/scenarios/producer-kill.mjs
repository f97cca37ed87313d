/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'producer-kill',
  fault: 'producer killed (`kill -9`), and started again with its own record of what it published',
  promise: 'what was confirmed stays; what it publishes again under the same id is stored once, in order',
  times: { whole: 50, short: { prosody: 1, ejabberd: 0 } },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      const producer = scene.random.pick(scene.producers)
      await scene.fault('producer killed', producer.name, async () => {
        await producer.kill()
        await producer.start()
        await scene.ready(producer)
      })
      await scene.flow('producers go on', { confirmed: 5, finished: 1 })
    }
  },
}
