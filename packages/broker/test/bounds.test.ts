/** docs/operating.md "Bounds": the list in the code is whole, true, documented, and each of it is on /metrics. */
import { readFileSync } from 'node:fs'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { BOUNDS, type Bound } from '../src/bounds.ts'
import type { Broker } from '../src/broker.ts'
import { describeConfig, parseConfig } from '../src/config.ts'
import { FOUND_MAX } from '../src/core/found.ts'
import { CLAIMABLE_TOPICS_MAX } from '../src/core/lines.ts'
import { RELIABLE_DEFAULTS } from '../src/core/port.ts'
import { FAN_OUT_HELD_MAX } from '../src/fan-out.ts'
import { DEFERRED_BYTES_MAX, DEFERRED_MAX } from '../src/intake.ts'
import { createBroker } from '../src/runtime.ts'
import { CLAIMS_MAX, PUBLISHING_OPS_MAX } from '../src/store-loop.ts'
import { fakeLinks } from './fake-links.ts'

const config = parseConfig({
  server: 'xmpp://127.0.0.1:1',
  secret: 'hunter2',
  queues: { 'q.localhost': { type: 'any' }, 'all.localhost': { type: 'all' } },
})
const made: Broker[] = []
afterEach(async () => {
  for (const broker of made.splice(0)) await broker.stop()
})

const find = (name: string): Bound | undefined => BOUNDS.find((bound) => bound.name === name)

describe('the list of bounds', () => {
  it('has every bound of the configuration, with its default', () => {
    const described = describeConfig(config) as {
      readonly limits: Record<string, unknown>
      readonly queues: Record<string, Record<string, unknown>>
    }
    // Those that are times, but for the load's, bound no memory, nor does the number of attempts.
    const isTime = (key: string, value: unknown) =>
      key === 'maxAttempts' ||
      (!/max(LoopDelay|InputDelay|CommitTime)$/.test(key) && /^\d+(ms|s|m|h|d)$/.test(String(value)))
    const keys = [
      ...Object.entries(described.limits).map(([key, value]) => [`limits.${key}`, value] as const),
      ...Object.entries(described.queues['q.localhost'] ?? {}),
    ].filter(([key, value]) => /(^|\.)max/.test(key) && !isTime(key, value))
    expect(keys.length).toBeGreaterThan(15)
    for (const [key, value] of keys) expect([key, find(key)?.value]).toEqual([key, String(value)])
  })

  it('has the bounds of the code, with their values', () => {
    const { plainWindow, unreceivedMax, ephemeralMax } = RELIABLE_DEFAULTS
    const constants = { plainWindow, unreceivedMax, ephemeralMax, DEFERRED_MAX, PUBLISHING_OPS_MAX, CLAIMS_MAX }
    const all = { ...constants, FAN_OUT_HELD_MAX, CLAIMABLE_TOPICS_MAX, FOUND_MAX }
    for (const [name, value] of Object.entries(all)) expect([name, find(name)?.value]).toEqual([name, String(value)])
    expect(find('ephemeralBytesMax')?.value).toBe(`${RELIABLE_DEFAULTS.ephemeralBytesMax / 1024 / 1024}MiB`)
    expect(find('DEFERRED_BYTES_MAX')?.value).toBe(`${DEFERRED_BYTES_MAX / 1024 / 1024}MiB`)
  })

  it('has metrics that are there, for each', async () => {
    const { links, createLink } = fakeLinks()
    const broker = createBroker(config, { parts: { createLink } })
    made.push(broker)
    const started = broker.start()
    await vi.waitUntil(() => links.length === 2 && links.every((link) => link.isStarted), { interval: 1 })
    for (const link of links) link.up()
    await started
    const text = await broker.metrics()
    for (const { what, metrics } of BOUNDS) {
      expect(metrics, what).not.toHaveLength(0)
      for (const metric of metrics) expect(text, what).toContain(`# TYPE ${metric.replace(/\{.*/, '')} `)
    }
  })

  it('stands in the documentation as it is', () => {
    const page = readFileSync(new URL('../../../docs/operating.md', import.meta.url), 'utf8')
    const table = page.slice(page.indexOf('<!-- bounds:begin -->'), page.indexOf('<!-- bounds:end -->'))
    const rows = BOUNDS.map(({ what, name, value, outcome, metrics }) => {
      return `| ${what} | \`${name}\` | ${value} | ${outcome} | ${metrics.map((metric) => `\`${metric}\``).join(', ')} |`
    })
    expect(table.split('\n').slice(3, -1)).toEqual(rows)
  })
})
