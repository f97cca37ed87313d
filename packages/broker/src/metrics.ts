/**
 * What is counted, and its Prometheus text.
 *
 * 1. Labels are bounded: a queue is one of the configuration's or `other`, a code or outcome is of a closed set, a domain is
 *    one of ours. Never a topic, never an address of a client.
 * 2. Counting is additions to plain numbers; names and labels are put to them only when somebody scrapes.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { LinkCounters } from './component.ts'
import type { CoreEvent, CoreStats, Load } from './core/port.ts'
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

interface QueueCounts {
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
}

const OTHER = 'other'
const DURATION_BUCKETS_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** CPU, memory, event-loop delay: one set a process, however many brokers run in it. */
let processRegistry: Registry | undefined

function processMetrics(): Registry {
  if (processRegistry === undefined) {
    processRegistry = new Registry()
    collectDefaultMetrics({ register: processRegistry })
  }
  return processRegistry
}

/** Counts what a broker does. Its only owner is the runtime. */
export class Metrics {
  readonly #queues = new Map<string, QueueCounts>()
  readonly #registry = new Registry()
  readonly #duration: Histogram<'queue'>
  #faults = 0
  #storeFailures = 0
  #listenerFaults = 0
  #overloads = 0

  constructor(queues: readonly string[], sources: MetricSources) {
    for (const queue of [...queues, OTHER]) this.#queues.set(queue, emptyQueue())
    this.#duration = new Histogram({
      name: 'xmq_request_duration_seconds',
      help: 'From the arrival of a request to its answer',
      labelNames: ['queue'] as const,
      buckets: DURATION_BUCKETS_SECONDS,
      registers: [this.#registry],
    })
    this.#registerCounters()
    this.#registerGauges(sources)
    this.#registerLinks(sources)
    this.#registerStore(sources)
    this.#counter('xmq_http_refused_total', 'Connections closed for their number', ['where'], (inc) => {
      inc({ where: 'http' }, sources.load().httpRefused)
    })
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
        this.#duration.observe({ queue: this.#queues.has(event.queue) ? event.queue : OTHER }, event.elapsedMs / 1000)
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

  /** The content type of {@link text}. */
  get contentType(): string {
    return this.#registry.contentType
  }

  /** Everything, as Prometheus reads it. */
  text(): Promise<string> {
    return Registry.merge([this.#registry, processMetrics()]).metrics()
  }

  #queueOf(queue: string): QueueCounts {
    // The constructor made OTHER.
    return (this.#queues.get(queue) ?? this.#queues.get(OTHER)) as QueueCounts
  }

  #registerCounters(): void {
    const perQueue = (name: string, help: string, of: (counts: QueueCounts) => number) =>
      this.#counter(name, help, ['queue'], (inc) => {
        for (const [queue, counts] of this.#queues) if (queue !== OTHER || of(counts) > 0) inc({ queue }, of(counts))
      })
    perQueue('xmq_messages_published_total', 'Messages accepted', (counts) => counts.published)
    perQueue('xmq_messages_delivered_total', 'Messages sent on, once for each recipient', (counts) => counts.delivered)
    perQueue('xmq_bounced_total', 'Deliveries that came back', (counts) => counts.bounced)
    perQueue('xmq_ignored_total', 'Stanzas that nothing lets act, dropped', (counts) => counts.ignored)
    perQueue('xmq_messages_stored_total', 'Messages that the store took', (counts) => counts.stored)
    perQueue('xmq_messages_duplicate_total', 'Publishes that had been stored before', (counts) => counts.duplicates)
    perQueue('xmq_messages_redelivered_total', 'Deliveries that were not the first', (counts) => counts.redelivered)
    const perKind = (name: string, help: string, label: string, of: (counts: QueueCounts) => Map<string, number>) =>
      this.#counter(name, help, ['queue', label], (inc) => {
        for (const [queue, counts] of this.#queues) for (const [kind, n] of of(counts)) inc({ queue, [label]: kind }, n)
      })
    perKind('xmq_settled_total', 'Leases, by what ended or extended them', 'outcome', (counts) => counts.settled)
    perKind('xmq_dead_letters_total', 'Messages given up', 'reason', (counts) => counts.dead)
    perKind('xmq_dropped_total', 'Messages that had to give way', 'what', (counts) => counts.dropped)
    this.#counter('xmq_store_failures_total', 'Times that the store stopped answering', ['where'], (inc) => {
      inc({ where: 'store' }, this.#storeFailures)
    })
    this.#counter('xmq_overloads_total', 'Times that new work began to be refused for the load', ['where'], (inc) => {
      inc({ where: 'broker' }, this.#overloads)
    })
    this.#counter('xmq_refused_total', 'Stanzas answered with an error of the broker', ['queue', 'code'], (inc) => {
      for (const [queue, counts] of this.#queues) for (const [code, n] of counts.refused) inc({ queue, code }, n)
    })
    this.#counter('xmq_requests_total', 'Requests answered, by what ended them', ['queue', 'outcome'], (inc) => {
      for (const [queue, counts] of this.#queues) for (const [outcome, n] of counts.requests) inc({ queue, outcome }, n)
    })
    this.#counter('xmq_faults_total', 'Faults of the broker itself; please report them', ['where'], (inc) => {
      inc({ where: 'core' }, this.#faults)
      inc({ where: 'listener' }, this.#listenerFaults)
    })
  }

  #registerGauges(sources: MetricSources): void {
    const gauge = (name: string, help: string, read: () => number) => {
      const made: Gauge = new Gauge({ name, help, registers: [this.#registry], collect: () => made.set(read()) })
    }
    gauge('xmq_subscriptions', 'Subscriptions', () => sources.core().subscriptions)
    gauge('xmq_consumers', 'Consumers with a subscription', () => sources.core().consumers)
    gauge('xmq_topics', 'Topics with a subscription', () => sources.core().topics)
    gauge('xmq_requests_in_flight', 'Requests not answered yet', () => sources.core().openRequests)
    gauge('xmq_pings_in_flight', 'Pings to consumers not answered yet', () => sources.core().pings)
    gauge('xmq_leases', 'Messages that consumers hold', () => sources.core().leases)
    gauge(
      'xmq_found_leases',
      'Leases of an earlier life of the broker that nobody has named',
      () => sources.core().foundLeases,
    )
    gauge('xmq_claimable_topics', 'Topics in which something waits', () => sources.core().claimableTopics)
    gauge('xmq_storing_bytes', 'Bytes of messages on their way to the store', () => sources.core().storingBytes)
    gauge('xmq_overloaded', '1 while new work is refused for the load', () => (sources.load().isShedding ? 1 : 0))
    gauge('xmq_deferred_stanzas', 'Stanzas that wait for what came after them', () => sources.load().deferred)
    gauge('xmq_publishing_operations', 'Publishes that the store has not answered', () => sources.load().publishing)
    gauge('xmq_sessions', 'Full JIDs that something depends on', () => sources.core().sessions)
    gauge('xmq_unanswered_deliveries', 'Deliver stanzas without an answer', () => sources.core().unansweredDeliveries)
    gauge('xmq_waiting_deliveries', 'Leased messages that wait for one', () => sources.core().waitingDeliveries)
    gauge('xmq_ephemeral_messages', 'Messages for ephemeral subscribers', () => sources.core().ephemeralMessages)
    gauge('xmq_ephemeral_bytes', 'Bytes of messages for ephemeral subscribers', () => sources.core().ephemeralBytes)
    gauge('xmq_named_subscriptions', 'Durable subscriptions', () => sources.core().namedSubscriptions)
    gauge('xmq_remembered_consumers', 'Consumers called after a restart', () => sources.core().rememberedConsumers)
    gauge('xmq_held_answers', 'Answers that wait for a stream to be up', () => sources.core().heldAnswers)
    gauge('xmq_http_connections', 'Connections for health and metrics', () => sources.load().httpConnections)
    gauge('xmq_log_kinds', 'Kinds of lines that the log counts', () => sources.load().logKinds)
    gauge('xmq_held_deliveries', 'Messages to many that wait for a server to read', () => sources.load().heldDeliveries)
    gauge('xmq_held_claims', 'Claims that wait for a server to read', () => sources.load().heldClaims)
    const load: Gauge<'of'> = new Gauge({
      name: 'xmq_load_seconds',
      help: 'Delays by which new work is refused: of the event loop, of what comes in, of the store',
      labelNames: ['of'] as const,
      registers: [this.#registry],
      collect: () => {
        const { loopDelayMs, inputDelayMs, commitMs } = sources.load()
        load.set({ of: 'loop' }, loopDelayMs / 1000)
        load.set({ of: 'input' }, inputDelayMs / 1000)
        load.set({ of: 'commit' }, commitMs / 1000)
      },
    })
    gauge('xmq_store_messages', 'Messages in the store', () => sources.store().messages)
    gauge('xmq_store_bytes', 'Bytes in the store', () => sources.store().bytes)
    gauge('xmq_store_waiting_bytes', 'Bytes of messages that wait for a commit', () => sources.store().waitingBytes)
    gauge('xmq_repeatable_acks', 'Acks that are remembered', () => sources.store().repeatableAcks)
  }

  /** What the store holds, by queue: its lines together. */
  #registerStore(sources: MetricSources): void {
    const gauge = (name: string, help: string, labelNames: readonly string[], fill: (gauge: Gauge) => void) => {
      const made: Gauge = new Gauge({
        name,
        help,
        labelNames,
        registers: [this.#registry],
        collect: () => {
          made.reset()
          fill(made)
        },
      })
    }
    const states = ['ready', 'delayed', 'leased', 'dead'] as const
    gauge('xmq_queue_messages', 'Messages of a queue in the store', ['queue', 'state'], (made) => {
      for (const line of sources.store().lines) {
        for (const state of states) made.inc({ queue: this.#labelOf(line.queue), state }, line[state])
      }
    })
    gauge('xmq_queue_bytes', 'Bytes of them; live is all but dead', ['queue', 'state'], (made) => {
      for (const { queue, bytes, deadBytes } of sources.store().lines) {
        made.inc({ queue: this.#labelOf(queue), state: 'live' }, bytes)
        made.inc({ queue: this.#labelOf(queue), state: 'dead' }, deadBytes)
      }
    })
    gauge('xmq_remembered_ids', 'Ids of publishes that are remembered', ['queue'], (made) => {
      for (const [queue, ids] of sources.store().remembered) made.inc({ queue: this.#labelOf(queue) }, ids)
    })
  }

  /** A store may hold queues that are not configured any more. */
  #labelOf(queue: string): string {
    return this.#queues.has(queue) ? queue : OTHER
  }

  #registerLinks(sources: MetricSources): void {
    const gauge = (name: string, help: string, of: (link: LinkGauges) => number) => {
      const made: Gauge<'domain'> = new Gauge({
        name,
        help,
        labelNames: ['domain'] as const,
        registers: [this.#registry],
        collect: () => {
          for (const link of sources.links()) made.set({ domain: link.domain }, of(link))
        },
      })
    }
    gauge('xmq_link_up', '1 while the link to the server is up', (link) => (link.isUp ? 1 : 0))
    gauge('xmq_link_outbound_bytes', 'Bytes that the server has not taken yet', (link) => link.outboundBytes)
    const counter = (name: string, help: string, of: (link: LinkGauges) => number) =>
      this.#counter(name, help, ['domain'], (inc) => {
        for (const link of sources.links()) inc({ domain: link.domain }, of(link))
      })
    counter('xmq_link_reconnects_total', 'Tries to connect after the first one', (link) => link.counters.reconnects)
    counter('xmq_link_stanzas_in_total', 'Stanzas read', (link) => link.counters.stanzasIn)
    counter('xmq_link_stanzas_out_total', 'Stanzas written', (link) => link.counters.stanzasOut)
    counter('xmq_link_bytes_in_total', 'Bytes read', (link) => link.counters.bytesIn)
    counter('xmq_link_bytes_out_total', 'Bytes written', (link) => link.counters.bytesOut)
    counter(
      'xmq_link_dropped_total',
      'Stanzas not written: the link was not up or full',
      (link) => link.counters.dropped,
    )
    counter('xmq_link_ignored_total', 'Stanzas without from or to', (link) => link.counters.ignored)
    counter('xmq_link_skipped_total', 'Stanzas over a limit, read to their end and dropped', (link) => link.skipped)
  }

  #counter<Label extends string>(
    name: string,
    help: string,
    labelNames: readonly Label[],
    collect: (inc: (labels: Record<Label, string>, by: number) => void) => void,
  ): void {
    const made: Counter<Label> = new Counter({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect: () => {
        made.reset()
        collect((labels, by) => made.inc(labels, by))
      },
    })
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
  }
}

function add(counts: Map<string, number>, key: string, by = 1): void {
  counts.set(key, (counts.get(key) ?? 0) + by)
}
