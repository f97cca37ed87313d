/**
 * What is counted. Its Prometheus text is metrics-text.ts, which is loaded with the first scrape: a broker that starts again
 * does not wait for it.
 *
 * 1. Labels are bounded: a queue is one of the configuration's or `other`, a code or outcome is of a closed set, a domain is
 *    one of ours. Never a topic, never an address of a client.
 * 2. Counting is additions to plain numbers; names and labels are put to them only when somebody scrapes.
 */
import type { LinkCounters } from './component.ts'
import type { CoreEvent, CoreStats, Load } from './core/port.ts'
import type { MetricsText } from './metrics-text.ts'
import type { StoreStats } from './store/port.ts'

/** What is read at the moment of a scrape. */
export interface MetricSources {
  core(): CoreStats
  store(): StoreStats
  links(): Iterable<LinkGauges>
  load(): LoadGauges
}

/** What the process has to do at the moment of a scrape. */
export interface LoadGauges extends Load {
  readonly isShedding: boolean
  /** Stanzas that wait for others that came after them. */
  readonly deferred: number
  /** Operations of publishes that the store has not answered. */
  readonly publishing: number
  /** Claims that wait until a server takes what was written. */
  readonly heldClaims: number
  /** Copies of plain messages to many that wait for the same. */
  readonly heldDeliveries: number
  readonly httpConnections: number
  readonly httpRefused: number
  /** Kinds of lines that the log counts. */
  readonly logKinds: number
}

/** One link at the moment of a scrape. */
export interface LinkGauges {
  readonly domain: string
  readonly isUp: boolean
  readonly outboundBytes: number
  readonly counters: LinkCounters
  /** Stanzas over a limit, of which only the head was read. */
  readonly skipped: number
}

/** What is counted of one queue. */
export interface QueueCounts {
  published: number
  delivered: number
  bounced: number
  ignored: number
  stored: number
  duplicates: number
  redelivered: number
  readonly settled: Map<string, number>
  readonly dead: Map<string, number>
  readonly dropped: Map<string, number>
  readonly refused: Map<string, number>
  readonly requests: Map<string, number>
  readonly durations: Durations
}

/** How long requests took. */
interface Durations {
  /** Requests up to each of {@link DURATION_BUCKETS_SECONDS} and above the one before it; beyond the last one they are only in `count`. */
  readonly buckets: number[]
  seconds: number
  count: number
}

/** What is counted, as a scrape finds it. */
export interface Counts {
  readonly queues: ReadonlyMap<string, QueueCounts>
  readonly faults: number
  readonly storeFailures: number
  readonly listenerFaults: number
  readonly overloads: number
}

/** The content type of the text. */
export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'
/** The label of queues that are not configured. */
export const OTHER = 'other'
export const DURATION_BUCKETS_SECONDS: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
]

/** Counts what a broker does. Its only owner is the runtime. */
export class Metrics {
  readonly #queues = new Map<string, QueueCounts>()
  readonly #sources: MetricSources
  #text: Promise<MetricsText> | undefined
  #faults = 0
  #storeFailures = 0
  #listenerFaults = 0
  #overloads = 0

  constructor(queues: readonly string[], sources: MetricSources) {
    for (const queue of [...queues, OTHER]) this.#queues.set(queue, emptyQueue())
    this.#sources = sources
  }

  countEvent(event: CoreEvent): void {
    const counts = this.#queueOf(event.queue)
    switch (event.name) {
      case 'published':
        counts.published++
        counts.delivered += event.recipients
        return
      case 'answered':
        add(counts.requests, event.outcome)
        observe(counts.durations, event.elapsedMs / 1000)
        return
      case 'refused':
        add(counts.refused, event.code)
        return
      case 'bounced':
        counts.bounced++
        return
      case 'ignored':
        counts.ignored++
        return
      case 'stored':
        counts.published += event.count - event.duplicates
        counts.stored += event.count - event.duplicates
        counts.duplicates += event.duplicates
        return
      case 'delivered':
        counts.delivered += event.count
        counts.redelivered += event.redelivered
        return
      case 'settled':
        add(counts.settled, event.outcome, event.count)
        return
      case 'dead-lettered':
        add(counts.dead, event.reason)
        return
      case 'dropped':
        add(counts.dropped, event.what, event.count)
        return
      case 'store':
        if (!event.isAvailable) this.#storeFailures++
        return
      case 'overload':
        if (event.isShedding) this.#overloads++
        return
      case 'subscribed':
      case 'unsubscribed':
      case 'requested':
    }
  }

  /** The core threw. */
  countFault(): void {
    this.#faults++
  }

  /** A listener of an event threw. */
  countListenerFault(): void {
    this.#listenerFaults++
  }

  /** Everything, as Prometheus reads it. */
  async text(): Promise<string> {
    this.#text ??= this.#load()
    return await (await this.#text).text()
  }

  async #load(): Promise<MetricsText> {
    const { MetricsText } = await import('./metrics-text.ts')
    return new MetricsText(() => this.#counts(), this.#sources)
  }

  #counts(): Counts {
    return {
      queues: this.#queues,
      faults: this.#faults,
      storeFailures: this.#storeFailures,
      listenerFaults: this.#listenerFaults,
      overloads: this.#overloads,
    }
  }

  #queueOf(queue: string): QueueCounts {
    // The constructor made OTHER.
    return (this.#queues.get(queue) ?? this.#queues.get(OTHER)) as QueueCounts
  }
}

function emptyQueue(): QueueCounts {
  return {
    published: 0,
    delivered: 0,
    bounced: 0,
    ignored: 0,
    stored: 0,
    duplicates: 0,
    redelivered: 0,
    settled: new Map(),
    dead: new Map(),
    dropped: new Map(),
    refused: new Map(),
    requests: new Map(),
    durations: { buckets: DURATION_BUCKETS_SECONDS.map(() => 0), seconds: 0, count: 0 },
  }
}

function add(counts: Map<string, number>, key: string, by = 1): void {
  counts.set(key, (counts.get(key) ?? 0) + by)
}

function observe(durations: Durations, seconds: number): void {
  durations.count++
  durations.seconds += seconds
  const at = DURATION_BUCKETS_SECONDS.findIndex((most) => seconds <= most)
  if (at !== -1) durations.buckets[at] = (durations.buckets[at] ?? 0) + 1
}
