/**
 * What refusing a publish costs the broker beside taking it, without sockets and without a disk: reading it, the core, the store in
 * memory, writing the answer.
 *
 *     npm run build && node bench/refusal.mjs
 *
 * bench/README.md says what the figures do not tell.
 */
import { createCore, domainsOf, parseConfig } from '../packages/broker/dist/index.js'
import { bringsWork } from '../packages/broker/dist/core/index.js'
import { createMemoryStore } from '../packages/broker/dist/store/memory.js'
import { writeElement, XmlStreamReader } from '../packages/protocol/dist/index.js'
import { startOptions } from './usage.mjs'

startOptions({})

const QUEUE = 'queue1.localhost'
const ROUNDS = 5
const STANZAS = 20_000

const config = parseConfig({
  server: 'xmpp://127.0.0.1:5347',
  secret: 'bench',
  queues: { [QUEUE]: { type: 'any', maxLength: 100_000_000, maxBytes: '1000000MiB', dedupe: '1s', maxDedupe: 1000 } },
})
const rules = {
  queues: config.queues,
  domains: domainsOf(config),
  ...config.limits,
  software: { name: 'XMQ', version: 'bench' },
  durability: 'memory',
  bodyBytesMax: 1_048_576,
}
const CALM = { loopDelayMs: 0, inputDelayMs: 0, commitMs: 0 }

async function openCore() {
  const store = createMemoryStore()
  await store.open(0)
  const core = createCore(rules)
  let ids = 0
  let written = 0
  let open = 0
  const entropy = { id: () => `id${ids++}`, unit: () => 0.5 }
  const handle = (input) => {
    for (const effect of core.handle(input, 1000, entropy)) {
      if (effect.type === 'send') written += Buffer.byteLength(writeElement(effect.stanza))
      else if (effect.type === 'apply') {
        open++
        void store.apply(effect.ops, 1000).then((results) => {
          open--
          handle({ type: 'applied', call: effect.call, results })
        })
      } else if (effect.type === 'subscriptions') {
        void store
          .subscriptions(effect.queue)
          .then((answer) => handle({ type: 'subscriptions', call: effect.call, answer }))
      } else if (effect.type === 'topics') {
        void store.topics(effect.request).then((answer) => handle({ type: 'topics', call: effect.call, answer }))
      } else if (effect.type === 'due') {
        void store.due(1000, effect.max).then((answer) => handle({ type: 'due', call: effect.call, answer }))
      }
    }
  }
  handle({ type: 'start' })
  handle({ type: 'link-up', domain: QUEUE })
  await new Promise((resolve) => setTimeout(resolve, 10))
  const reader = new XmlStreamReader({
    onOpen() {},
    onElement: (stanza) => handle({ type: 'stanza', stanza }),
    onSkipped: (head, error) => handle({ type: 'skipped', head, error }),
    onChild: (head, child) => (core.refusal !== undefined && bringsWork(head, child) ? core.refusal : undefined),
    onClose() {},
  })
  const stream = "xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1'"
  reader.write(`<stream:stream ${stream} from='${QUEUE}'>`)
  return { handle, reader, isIdle: () => open === 0, take: () => written }
}

const body = `<json xmlns='urn:xmpp:json:0'>"${'x'.repeat(198)}"</json>`
const stanza = (serial, items) => {
  const all = Array.from({ length: items }, (_, item) => `<item id='0.${serial}.${item}' topic='bench'>${body}</item>`)
  const head = `type='set' id='0.${serial}' to='${QUEUE}' from='producer@localhost/abcdefghij'`
  return `<iq ${head}><publish xmlns='xmq:queue:1'>${all.join('')}</publish></iq>`
}

async function measure(items, isRefused) {
  const { handle, reader, isIdle, take } = await openCore()
  if (isRefused) handle({ type: 'load', load: { ...CALM, commitMs: 1e9 } })
  const chunks = []
  const perChunk = Math.max(1, Math.round(64 / items))
  for (let serial = 0; serial < STANZAS / items; serial += perChunk) {
    let text = ''
    for (let index = 0; index < perChunk; index++) text += stanza(serial + index, items)
    chunks.push(Buffer.from(text))
  }
  const startedAt = process.hrtime.bigint()
  for (const chunk of chunks) {
    reader.write(chunk.toString())
    while (!isIdle()) await Promise.resolve()
  }
  const spent = Number(process.hrtime.bigint() - startedAt)
  if (take() === 0) throw new Error('nothing was answered')
  return spent / (chunks.length * perChunk)
}

console.log('items  taken µs  refused µs  share')
for (const items of [1, 10, 50]) {
  const times = { taken: [], refused: [] }
  for (let round = 0; round <= ROUNDS; round++) {
    for (const way of ['taken', 'refused']) times[way].push(await measure(items, way === 'refused'))
  }
  const [taken, refused] = ['taken', 'refused'].map(
    (way) => times[way].slice(1).sort((a, b) => a - b)[ROUNDS >> 1] / 1000,
  )
  const cells = [String(items).padStart(5), taken.toFixed(1).padStart(9), refused.toFixed(1).padStart(11)]
  console.log(`${cells.join(' ')} ${(refused / taken).toFixed(2).padStart(6)}`)
}
