/**
 * What takes part: each system with its server, its client and how durable its confirm is.
 *
 *     open(plan) --> { server: pids, folder, stop }  { client: options of client-*.mjs }
 */
import { cpus } from 'node:os'
import { join } from 'node:path'
import { startChild } from '../through/child.mjs'
import { dataFolder } from './processes.mjs'
import { isRabbitInstalled, startRabbit } from './rabbitmq.mjs'
import { isRedisInstalled, startRedis } from './redis.mjs'

const QUEUE = 'jobs.localhost'
const PASSWORD = 'pw'

/** @typedef {{ name: string, title: string, batch?: number, confirm: string, open: (plan: object) => Promise<object> }} System */

/** RabbitMQ and BullMQ, as far as they are installed. */
export function peerSystems() {
  return [...(isRabbitInstalled() ? RABBITMQ : []), ...(isRedisInstalled() ? BULLMQ : [])]
}

/** Names of all systems, installed or not. */
export function knownSystems(kinds) {
  const ours = kinds.flatMap((kind) => xmqSystems([kind]))
  return [...RABBITMQ, ...BULLMQ, ...ours].map(({ name }) => name)
}

/** XMQ through each server that is installed. */
export function xmqSystems(kinds) {
  return kinds.flatMap((kind) => {
    const system = {
      name: `xmq-${kind}`,
      title: `XMQ, ${kind}`,
      shares: `xmq-${kind}`,
      confirm: 'synced (SQLite, `synchronous=FULL`, group commit)',
      open: (plan) => openXmq(kind, plan),
    }
    const many = { ...system, name: `xmq-${kind}-many`, title: `XMQ, ${kind}, publishMany`, batch: 100 }
    return kind === kinds.at(-1) ? [system, many] : [system]
  })
}

const RABBITMQ = [
  {
    name: 'rabbitmq-quorum',
    title: 'RabbitMQ quorum',
    shares: 'rabbitmq-quorum',
    confirm: 'synced (Raft log, one node)',
    open: (plan) => openRabbit(plan, 'quorum'),
  },
  {
    name: 'rabbitmq-classic',
    title: 'RabbitMQ classic',
    shares: 'rabbitmq-classic',
    confirm: 'synced (durable queue, persistent messages)',
    open: (plan) => openRabbit(plan, 'classic'),
  },
]

const BULLMQ = ['everysec', 'always'].flatMap((appendfsync) => {
  const isAlways = appendfsync === 'always'
  const system = {
    name: `bullmq-${appendfsync}`,
    title: `BullMQ, ${appendfsync}`,
    shares: `bullmq-${appendfsync}`,
    confirm: isAlways ? 'synced (append-only file)' : 'in memory, synced within a second or two',
    open: (plan) => openBullmq(plan, appendfsync),
  }
  return isAlways
    ? [system, { ...system, name: `${system.name}-bulk`, title: `${system.title}, addBulk`, batch: 100 }]
    : [system]
})

async function openRabbit(plan, type) {
  const server = await startRabbit(plan.data)
  const client = { url: server.url, queue: QUEUE, arguments: { 'x-queue-type': type } }
  return { ...server, client, library: 'client-rabbitmq.mjs' }
}

async function openBullmq(plan, appendfsync) {
  const { host, port, ...server } = await startRedis(appendfsync, plan.data)
  return { ...server, client: { host, port, queue: 'jobs' }, library: 'client-bullmq.mjs' }
}

async function openXmq(kind, plan) {
  const stops = []
  const stop = async () => {
    for (const undo of stops.splice(0).reverse()) await undo()
  }
  try {
    const names = Array.from({ length: plan.connections }, (_, index) => [`producer${index}`, `worker${index}`]).flat()
    const accounts = Object.fromEntries(names.map((name) => [name, PASSWORD]))
    const { server, pid } = await startXmpp(kind, accounts, plan, stops)
    const { folder, remove } = dataFolder('xmq', plan.data)
    stops.push(remove)
    const options = { server, queue: QUEUE, path: join(folder, 'xmq.db') }
    const broker = await startChild('../peers/broker.mjs', options, nodeArguments(plan, `${kind}-broker`))
    stops.push(broker.stop)
    stops.push(() => broker.ask('stop'))
    const service = `xmpp://${server.host}:${server.c2sPort}`
    const client = { service, password: PASSWORD, queue: QUEUE }
    return { pids: [broker.ready.pid], otherPids: [pid], folder, client, library: 'client-xmq.mjs', broker, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function startXmpp(kind, accounts, plan, stops) {
  if (kind === 'embedded') {
    const child = await startChild('embedded.mjs', { accounts }, nodeArguments(plan, 'embedded'))
    stops.push(child.stop)
    return { server: child.ready, pid: child.pid }
  }
  const { startServer } = await import('../../test/servers/dist/index.js')
  const options = { accounts, componentDomains: [QUEUE], schedulers: cpus().length }
  const server = await startServer(kind, options)
  stops.push(() => server.dispose())
  const { host, c2sPort, componentPort, secret, pid } = server
  return { server: { host, c2sPort, componentPort, secret }, pid }
}

/** As docs/operating.md advises for a broker; the same for every process of every system that is Node. */
const YOUNG_GENERATION = '--max-semi-space-size=64'

/** Arguments of a Node process. @param name of one that may be profiled */
export function nodeArguments(plan, name) {
  return name === undefined ? [YOUNG_GENERATION] : [YOUNG_GENERATION, ...profileOf(plan, name)]
}

/** Arguments of a Node process that is to be profiled. */
function profileOf({ profile }, name) {
  return profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${join(profile, name)}`]
}
