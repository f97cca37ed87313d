/**
 * What one plain message costs the broker, without sockets: reading it, the core, writing the delivery.
 *
 *     npm run build && node bench/pipeline.mjs
 *
 * bench/README.md says what the figures do not tell.
 */
import { createCore, domainsOf, parseConfig } from '../packages/broker/dist/index.js'
import { writeElement, XmlStreamReader } from '../packages/protocol/dist/index.js'
import { startOptions } from './usage.mjs'

startOptions({})

const QUEUE = 'queue1.localhost'
const ROUNDS = 5
const MESSAGES = 200_000

const config = parseConfig({
  server: 'xmpp://127.0.0.1:5347',
  secret: 'bench',
  queues: { [QUEUE]: { type: 'any' } },
})
const rules = {
  queues: config.queues,
  domains: domainsOf(config),
  ...config.limits,
  software: { name: 'XMQ', version: 'bench' },
  durability: 'memory',
  bodyBytesMax: 1_048_576,
}

let ids = 0
const entropy = { id: () => `id${ids++}`, unit: () => 0.5 }
const core = createCore(rules)
const handle = (stanza) => core.handle({ type: 'stanza', stanza }, 1000, entropy)

let onElement = handle
const reader = new XmlStreamReader({
  onOpen() {},
  onElement: (stanza) => onElement(stanza),
  onSkipped: (_, error) => {
    throw error
  },
  onClose() {},
})
const STREAM = "xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1'"
reader.write(`<stream:stream ${STREAM} from='${QUEUE}'>`)
for (let worker = 0; worker < 4; worker++) {
  const sub = "<xmq xmlns='xmq:command' command='sub' topic='bench' ttl='86400' load='1'/>"
  reader.write(`<iq type='set' id='s${worker}' from='w${worker}@localhost/x' to='${QUEUE}'>${sub}</iq>`)
}

const chunks = Array.from({ length: 1000 }, (_, index) => {
  const json = `<json xmlns='urn:xmpp:json:0'>"${String(index).padEnd(198, 'x')}"</json>`
  const head = `type='normal' to='${QUEUE}' from='producer${index % 4}@localhost/abcdefghij'`
  return Buffer.from(`<message ${head}><xmq xmlns='xmq:topic' topic='bench'>${json}</xmq></message>`)
})
const stanzas = []
onElement = (stanza) => stanzas.push(stanza)
for (const chunk of chunks) reader.write(chunk.toString())

let written = 0
const write = (effects) => {
  for (const effect of effects) if (effect.type === 'send') written += Buffer.from(writeElement(effect.stanza)).length
}
const ways = {
  read: (index) => reader.write(chunks[index].toString()),
  core: (index) => handle(stanzas[index]),
  'read, core, write': (index) => reader.write(chunks[index].toString()),
}
const elements = { read: () => {}, core: () => {}, 'read, core, write': (stanza) => write(handle(stanza)) }

function measure(name) {
  onElement = elements[name]
  const act = ways[name]
  const startedAt = process.hrtime.bigint()
  for (let count = 0; count < MESSAGES; count++) act(count % chunks.length)
  return Number(process.hrtime.bigint() - startedAt) / MESSAGES
}

const times = Object.fromEntries(Object.keys(ways).map((name) => [name, []]))
for (const name of Object.keys(ways)) measure(name)
for (let round = 0; round < ROUNDS; round++) for (const name of Object.keys(ways)) times[name].push(measure(name))
for (const [name, all] of Object.entries(times)) {
  const median = all.sort((a, b) => a - b)[ROUNDS >> 1]
  console.log(`${name.padEnd(20)} ${(median / 1000).toFixed(2).padStart(6)} µs a message`)
}
if (written === 0) throw new Error('nothing was delivered')
