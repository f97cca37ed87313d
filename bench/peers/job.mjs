/**
 * The job, the same for every system: publish as fast as it is confirmed, wait until all of it is acked; then at a rate, for
 * the latency.
 */
import { nowMs, startChild } from '../through/child.mjs'
import { usageOf } from './processes.mjs'
import { nodeArguments } from './systems.mjs'

const WARM_UP_MS = 700
const LATENCY_MS = 2_500
const DRAIN_MAX_MS = 120_000

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** A system with its processes, ready for rounds. */
export async function openField(system, plan) {
  const opened = await system.open(plan)
  const stops = [opened.stop]
  const stop = async () => {
    for (const undo of stops.splice(0).reverse()) await undo()
  }
  try {
    const { connections, window, unacked, bodyBytes } = plan
    const client = new URL(opened.library, import.meta.url).href
    const isOurs = opened.broker !== undefined
    const node = (role) => nodeArguments(plan, isOurs ? `${system.name}-${role}` : undefined)
    const common = { client, connections, ...opened.client }
    const workers = await startChild('../peers/workers.mjs', { ...common, unacked }, node('workers'))
    stops.push(workers.stop)
    const producers = await startChild('../peers/producers.mjs', { ...common, window, bodyBytes }, node('producers'))
    stops.push(producers.stop)
    stops.push(async () => {
      await producers.ask('close')
      await workers.ask('close')
    })
    return { ...opened, producers, workers, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function sampleOf({ producers, workers, pids, otherPids = [] }) {
  const [producer, worker] = await Promise.all([producers.ask('sample'), workers.ask('sample')])
  const server = usageOf(pids)
  const other = usageOf(otherPids)
  return {
    received: worker.received,
    lastAt: worker.lastAt,
    producerMs: producer.cpuMs,
    workerMs: worker.cpuMs,
    serverMs: server.cpuMs,
    otherMs: other.cpuMs,
    writtenBytes: server.writtenBytes + other.writtenBytes,
  }
}

/** Waits until all that was published was handled: what is lost makes a figure worthless. */
async function drain(system, workers, expected) {
  const end = performance.now() + DRAIN_MAX_MS
  for (;;) {
    const sample = await workers.ask('sample')
    if (sample.received >= expected) return sample
    if (performance.now() > end)
      throw new Error(`${system.name}: ${expected - sample.received} messages never arrived.`)
    await pause(20)
  }
}

/** Publishes for a time, or so many, and waits for the last of them. */
async function runJob(system, field, how, ms) {
  const before = await sampleOf(field)
  const { startedAt } = await field.producers.ask('start', how)
  if (how.messages === undefined) await pause(ms)
  const { sent } = await field.producers.ask('stop')
  const confirmedAt = nowMs()
  await drain(system, field.workers, before.received + sent)
  const after = await sampleOf(field)
  const cost = (key) => ((after[key] - before[key]) * 1000) / sent
  return {
    sent,
    again: after.received - before.received - sent,
    perSecond: (sent * 1000) / (after.lastAt - startedAt),
    confirmedPerSecond: (sent * 1000) / (confirmedAt - startedAt),
    producerUs: cost('producerMs'),
    workerUs: cost('workerMs'),
    serverUs: cost('serverMs'),
    otherUs: cost('otherMs'),
    writtenBytes: cost('writtenBytes') / 1000,
  }
}

/** One round of one system. */
export async function measure(system, field, plan) {
  const { batch } = system
  await runJob(system, field, { batch }, WARM_UP_MS)
  const full = await runJob(system, field, { batch, messages: plan.messages }, plan.seconds * 1000)
  await field.workers.ask('startLatencies')
  await runJob(system, field, { rate: plan.rate }, LATENCY_MS)
  return { ...full, ...(await field.workers.ask('stopLatencies')) }
}
