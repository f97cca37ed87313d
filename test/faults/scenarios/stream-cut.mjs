import { CutProxy } from '../devices/cut-proxy.mjs'
import { inTime } from '../patience.mjs'

/** What is cut: each stanza of the life of a message, at every byte of one with one item. */
const STANZAS = [
  { what: 'publish', way: 'down', pattern: /<publish /, bytesMax: 450 },
  { what: 'confirm', way: 'up', pattern: /<published /, bytesMax: 260 },
  { what: 'deliver', way: 'up', pattern: /<deliver /, bytesMax: 500 },
  { what: 'settle', way: 'down', pattern: /<settle /, bytesMax: 250 },
  { what: 'settled', way: 'up', pattern: /<settled /, bytesMax: 140 },
]
/** Every cut there is: one stanza after the other at each byte, so that neighbours in the list are different stanzas. */
const CUTS = STANZAS.flatMap((stanza, at) =>
  Array.from({ length: stanza.bytesMax }, (_, bytes) => ({
    ...stanza,
    bytes,
    place: bytes / stanza.bytesMax + at * 1e-9,
  })),
).sort((a, b) => a.place - b.place)
/** A pause that keeps cuts coming. */
const RECONNECT = '100ms'

let proxy

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'stream-cut',
  fault: 'component stream cut inside a stanza (publish, confirm, deliver, settle, settled), at every byte',
  promise:
    'nothing confirmed is lost; what had no answer is sent again under the same id; the streams come back by themselves',
  times: { whole: CUTS.length, short: { prosody: 0, ejabberd: 10 } },
  async prepare(scene, plan) {
    proxy = await CutProxy.start(scene.server.componentPort)
    scene.afterwards(() => proxy.close())
    plan.config.server = `xmpp://127.0.0.1:${proxy.port}`
    plan.config.limits = { maxReconnectPause: RECONNECT }
    // Small stanzas: their bytes are what is counted.
    plan.rate = 40
  },
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      const { what, way, pattern, bytes } = CUTS[Math.floor((time * CUTS.length) / times) % CUTS.length]
      await scene.fault(`stream cut in a ${what}`, 'stream', async () => {
        const order = { way, pattern, bytes, isReset: scene.random.chance(0.3) }
        await inTime(`a ${what} of ${bytes} bytes or more`, proxy.cut(order))
        await scene.flow('service after a cut', { confirmed: 1, finished: 1 })
      })
    }
  },
}
