/** docs/operating.md "Bounds": the list in the code is whole, true, documented, and each of it is on /metrics. */
import { readdirSync, readFileSync } from 'node:fs'
import { PROGRESS_MAX } from '@xmq/protocol'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { BOUNDS, type Bound } from '../src/bounds.ts'
import type { Broker } from '../src/broker.ts'
import { describeConfig, parseConfig } from '../src/config.ts'
import { RELIABLE_DEFAULTS } from '../src/core/port.ts'
import { createBroker } from '../src/runtime.ts'
import { REPEATED_ACKS_MIN } from '../src/store/entry.ts'
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

const STEP = 'of one step of work: the rest is done with the next'
const ANSWER = 'of one page or stanza: more go into the next'
const CUT = 'what is longer is cut or refused, one at a time: nothing adds up'
const CACHE = 'a cache: emptied when it is full, and nothing is refused or lost by it'
const TIME = 'a time'
const OWN = 'of the configuration, which nobody else writes'
/** What is named as a bound is, but is none of what clients can fill: by file and name, why. */
const NO_BOUND: Readonly<Record<string, string>> = {
  'config-queues.ts QUEUES_MAX': OWN,
  'config-reliable.ts COUNT_MAX': OWN,
  'config-values.ts DEPTH_MAX': OWN,
  'config-values.ts PROBLEMS_MAX': OWN,
  'core-loop.ts TIMER_MS_MAX': TIME,
  'core/absences.ts ABSENCE_MS_MAX': TIME,
  'core/admin.ts CONSUMERS_MAX': ANSWER,
  'core/admin.ts LINES_MAX': ANSWER,
  'core/admin.ts NAMES_TOLD_MAX': ANSWER,
  'core/admin.ts PAGE_BYTES_MAX': ANSWER,
  'core/arrivals.ts ID_ECHO_BYTES_MAX': CUT,
  'core/arrivals.ts ID_LENGTH_MAX': CUT,
  'core/backoff.ts DELIVERIES_MAX': 'a rule of when a message is given up: dead letters have their own bound',
  'core/deliveries.ts ITEMS_BYTES_MAX': ANSWER,
  'core/deliveries.ts ITEMS_MAX': ANSWER,
  'core/dispatch.ts CLAIM_BYTES_MAX': STEP,
  'core/dispatch.ts GRANTS_MAX': STEP,
  'core/dispatch.ts TOPICS_MAX': STEP,
  'core/lease-token.ts TOKEN_LENGTH_MAX': CUT,
  'core/named.ts TARGETS_MAX': CACHE,
  'core/overload.ts RETRY_SECONDS_MAX': TIME,
  'core/requests.ts TRIES_MAX': STEP,
  'core/store-time.ts DUE_MAX': STEP,
  'core/store-time.ts TRIM_MAX': STEP,
  'http.ts HEADER_BYTES_MAX': 'of one connection: CONNECTIONS_MAX bounds them',
  'http.ts REQUEST_MS_MAX': TIME,
  'link/options.ts TIMER_MS_MAX': TIME,
  'link/outbound.ts JOINED_LENGTH_MAX': 'of one string within outboundBytesMax',
  'link/stream.ts TURN_BYTES_MAX': STEP,
  'link/watchdog.ts IDS_MAX': 'pings of the broker itself, that it sends by its own clock',
  'log.ts TEXT_LENGTH_MAX': CUT,
  'store/entry.ts HISTORY_MAX': 'of one message, whose number is bounded',
  'store/entry.ts WHY_LENGTH_MAX': CUT,
  'store/limits.ts BODY_BYTES_MAX': 'the highest that maxPayload may be',
  'store/operations.ts OVERFLOW_DROPS_MAX': STEP,
  'store/port.ts CLAIM_SKIPS_MAX': STEP,
  'store/port.ts CLAIM_TOPICS_MAX': STEP,
  'store/sqlite/channel.ts BATCHES_AHEAD_MAX': STEP,
  'store/sqlite/claims.ts PAGE_MAX': STEP,
  'store/sqlite/dedupe-block.ts BLOCK_MAX': STEP,
  'store/sqlite/dedupe-key.ts ID_BYTES_MAX': CUT,
  'store/sqlite/dedupe-key.ts SENDERS_MAX': CACHE,
  'store/sqlite/dedupe.ts GAPS_MAX': CACHE,
  'store/sqlite/dedupe.ts RUNS_MAX': STEP,
  'store/sqlite/dedupe.ts SWEEP_MAX': STEP,
  'store/sqlite/engine.ts CLAIMABLE_TOLD_MAX': STEP,
  'store/sqlite/engine.ts DISK_FAILURES_MAX': 'failures of a disk',
  'store/sqlite/message-data.ts INLINE_BYTES_MAX': 'says where a message lies',
  'store/sqlite/lane-merge.ts PLACES_MAX': STEP,
  'store/sqlite/operations.ts PURGE_READS_MAX': STEP,
  'store/sqlite/operations.ts REMOVALS_MAX': STEP,
  'store/sqlite/queries.ts BROWSE_READS_MAX': STEP,
  'store/sqlite/store.ts BATCH_BYTES_MAX': STEP,
  'store/sqlite/store.ts BATCH_OPS_MAX': STEP,
  'store/sqlite/tallies.ts IDLE_TOPICS_MAX': CACHE,
  'store/sqlite/tallies.ts LINES_MAX': 'numbers of lines, which go round: maxNamed bounds the lines',
  'store/sqlite/tallies.ts TOPICS_CACHED_MAX': CACHE,
  'trouble-log.ts REASONS_MAX': 'lines of the log about one trouble: further ones are not told',
}

interface CodeBound {
  readonly file: string
  readonly name: string
  /** As the list writes it; undefined: the list says more than a number. */
  readonly value: string | undefined
}

/** Constants and defaults of the sources that are named as bounds are. */
function boundsOfTheCode(): CodeBound[] {
  const root = new URL('../src/', import.meta.url)
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
  return files.flatMap((file) => {
    const text = readFileSync(new URL(file, root), 'utf8')
    const constants = Array.from(
      text.matchAll(/^(?:export )?const ([A-Z][A-Z0-9_]*_MAX)\b[^=\n]*= (.*)$/gm),
      (match) => {
        const [, name = '', value = ''] = match
        return { file, name, value: valueOf(name, value) }
      },
    )
    // Defaults stand in frozen objects; the configuration turns their names round. Times bound no memory.
    const defaults = Array.from(text.matchAll(/^ {2}(\w+(?<!Ms)Max): [\d(M]/gm), ([, name = '']) => {
      const configured = `max${name.charAt(0).toUpperCase()}${name.slice(1, -3)}`
      const known = find(configured) === undefined ? name : configured
      return { file, name: known, value: find(known)?.value }
    })
    return constants.concat(defaults)
  })
}

function valueOf(name: string, text: string): string | undefined {
  const factors = text.split('*').map((factor) => Number(factor.trim().replaceAll('_', '')))
  const value = factors.reduce((product, factor) => product * factor, 1)
  if (Number.isNaN(value)) return undefined
  return name.endsWith('BYTES_MAX') ? `${value / 1024 / 1024}MiB` : String(value)
}

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

  it('has every bound of the code, with its value, or a reason why it is none', () => {
    const found = boundsOfTheCode()
    expect(found.length).toBeGreaterThan(60)
    const unknown = found.filter(
      ({ file, name }) => find(name) === undefined && NO_BOUND[`${file} ${name}`] === undefined,
    )
    expect(unknown).toEqual([])
    for (const { file, name, value } of found) {
      if (NO_BOUND[`${file} ${name}`] === undefined)
        expect([file, name, find(name)?.value]).toEqual([file, name, value])
    }
    const names = new Set(found.map(({ file, name }) => `${file} ${name}`))
    expect(Object.keys(NO_BOUND).filter((name) => !names.has(name))).toEqual([])
    const { plainWindow } = RELIABLE_DEFAULTS
    for (const [name, value] of Object.entries({ plainWindow, PROGRESS_MAX, REPEATED_ACKS_MIN })) {
      expect([name, find(name)?.value]).toEqual([name, String(value)])
    }
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
