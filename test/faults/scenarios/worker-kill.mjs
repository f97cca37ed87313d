/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'worker-kill',
  fault: 'worker killed (`kill -9`)',
  promise: 'what it held goes to another worker at once',
  times: { whole: 200, short: { prosody: 2, ejabberd: 2 } },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      await scene.moment()
      const worker = scene.random.pick(scene.workers)
      await scene.fault('worker killed', worker.name, async () => {
        await worker.kill()
        await worker.start()
        await scene.ready(worker)
      })
      await scene.flow('others go on', { confirmed: 1, finished: 1 })
    }
  },
}
