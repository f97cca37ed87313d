/** The Prometheus text of what metrics.ts counts, and of what is read at the moment of a scrape. */
import { Counter, type CounterConfiguration, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import {
  type Counts,
  DURATION_BUCKETS_SECONDS,
  type LinkGauges,
  type MetricSources,
  OTHER,
  type QueueCounts,
} from './metrics.ts'

const DURATION = 'xmq_request_duration_seconds'
const DURATION_HELP = 'From the arrival of a request to its answer'

/** CPU, memory, event-loop delay: one set a process, however many brokers run in it. */
let processRegistry: Registry | undefined

function processMetrics(): Registry {
  if (processRegistry === undefined) {
    processRegistry = new Registry()
    collectDefaultMetrics({ register: processRegistry })
  }
  return processRegistry
}

/** Tells what there is by its labels; what has the same labels adds up. */
type Fill<Label extends string> = (inc: (labels: Record<Label, string>, by: number) => void) => void

/** Puts names and labels to numbers. Its only owner is `Metrics`. */
export class MetricsText {
  readonly #registry = new Registry()
  readonly #read: () => Counts

  constructor(read: () => Counts, sources: MetricSources) {
    this.#read = read
    this.#registry.registerMetric(new Durations(() => this.#read().queues))
    this.#registerCounters()
    this.#registerGauges(sources)
    this.#registerLinks(sources)
    this.#registerStore(sources)
    this.#counter('xmq_http_refused_total', 'Connections closed for their number', ['where'], (inc) => {
      inc({ where: 'http' }, sources.load().httpRefused)
    })
  }

  /** Everything, as Prometheus reads it. */
  text(): Promise<string> {
    return Registry.merge([this.#registry, processMetrics()]).metrics()
  }

  #registerCounters(): void {
    const perQueue = (name: string, help: string, of: (counts: QueueCounts) => number) =>
      this.#counter(name, help, ['queue'], (inc) => {
        for (const [queue, counts] of this.#read().queues)
          if (queue !== OTHER || of(counts) > 0) inc({ queue }, of(counts))
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
        for (const [queue, counts] of this.#read().queues)
          for (const [kind, n] of of(counts)) inc({ queue, [label]: kind }, n)
      })
    perKind('xmq_settled_total', 'Leases, by what ended or extended them', 'outcome', (counts) => counts.settled)
    perKind('xmq_dead_letters_total', 'Messages given up', 'reason', (counts) => counts.dead)
    perKind('xmq_dropped_total', 'Messages that had to give way', 'what', (counts) => counts.dropped)
    this.#counter('xmq_store_failures_total', 'Times that the store stopped answering', ['where'], (inc) => {
      inc({ where: 'store' }, this.#read().storeFailures)
    })
    this.#counter('xmq_overloads_total', 'Times that new work began to be refused for the load', ['where'], (inc) => {
      inc({ where: 'broker' }, this.#read().overloads)
    })
    this.#counter('xmq_refused_total', 'Stanzas answered with an error of the broker', ['queue', 'code'], (inc) => {
      for (const [queue, counts] of this.#read().queues) for (const [code, n] of counts.refused) inc({ queue, code }, n)
    })
    this.#counter('xmq_requests_total', 'Requests answered, by what ended them', ['queue', 'outcome'], (inc) => {
      for (const [queue, counts] of this.#read().queues)
        for (const [outcome, n] of counts.requests) inc({ queue, outcome }, n)
    })
    this.#counter('xmq_faults_total', 'Faults of the broker itself; please report them', ['where'], (inc) => {
      inc({ where: 'core' }, this.#read().faults)
      inc({ where: 'listener' }, this.#read().listenerFaults)
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
    gauge(
      'xmq_unheard_settlements',
      'Acks and rejects that the store has not heard',
      () => sources.core().unheardSettlements,
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
    const states = ['ready', 'delayed', 'leased', 'dead'] as const
    this.#gauge('xmq_queue_messages', 'Messages of a queue in the store', ['queue', 'state'], (inc) => {
      for (const line of sources.store().lines) {
        for (const state of states) inc({ queue: this.#labelOf(line.queue), state }, line[state])
      }
    })
    this.#gauge('xmq_queue_bytes', 'Bytes of them; live is all but dead', ['queue', 'state'], (inc) => {
      for (const { queue, bytes, deadBytes } of sources.store().lines) {
        inc({ queue: this.#labelOf(queue), state: 'live' }, bytes)
        inc({ queue: this.#labelOf(queue), state: 'dead' }, deadBytes)
      }
    })
    this.#gauge('xmq_remembered_ids', 'Ids of publishes that are remembered', ['queue'], (inc) => {
      for (const [queue, ids] of sources.store().remembered) inc({ queue: this.#labelOf(queue) }, ids)
    })
  }

  /** A store may hold queues that are not configured any more. */
  #labelOf(queue: string): string {
    return this.#read().queues.has(queue) ? queue : OTHER
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

  #counter<Label extends string>(name: string, help: string, labelNames: readonly Label[], fill: Fill<Label>): void {
    this.#filled((config) => new Counter<Label>(config), { name, help, labelNames }, fill)
  }

  #gauge<Label extends string>(name: string, help: string, labelNames: readonly Label[], fill: Fill<Label>): void {
    this.#filled((config) => new Gauge<Label>(config), { name, help, labelNames }, fill)
  }

  /** A metric that is counted anew for each scrape. */
  #filled<Label extends string>(
    make: (config: CounterConfiguration<Label>) => Counter<Label> | Gauge<Label>,
    config: { readonly name: string; readonly help: string; readonly labelNames: readonly Label[] },
    fill: Fill<Label>,
  ): void {
    const made = make({
      ...config,
      registers: [this.#registry],
      collect: () => {
        made.reset()
        fill((labels, by) => made.inc(labels, by))
      },
    })
  }
}

/** Our own counts in the form of a histogram: it has nothing to observe. */
class Durations extends Histogram<'queue'> {
  readonly #queues: () => Counts['queues']

  constructor(queues: () => Counts['queues']) {
    super({
      name: DURATION,
      help: DURATION_HELP,
      labelNames: ['queue'] as const,
      buckets: [...DURATION_BUCKETS_SECONDS],
      registers: [],
    })
    this.#queues = queues
  }

  /** What the registry asks of a metric that has it, in the place of `get`. */
  getForPromString(): object {
    const values = [...this.#queues()].flatMap(([queue, counts]) => samplesOf(queue, counts))
    return { name: DURATION, help: DURATION_HELP, type: 'histogram', values }
  }
}

function samplesOf(
  queue: string,
  { durations: { buckets, seconds, count } }: QueueCounts,
): { readonly metricName: string; readonly labels: { queue: string; le?: string }; readonly value: number }[] {
  if (count === 0) return []
  let upTo = 0
  const samples = buckets.map((inIt, at) => {
    upTo += inIt
    const labels = { queue, le: String(DURATION_BUCKETS_SECONDS[at]) }
    return { metricName: `${DURATION}_bucket`, labels, value: upTo }
  })
  return [
    ...samples,
    { metricName: `${DURATION}_bucket`, labels: { queue, le: '+Inf' }, value: count },
    { metricName: `${DURATION}_sum`, labels: { queue }, value: seconds },
    { metricName: `${DURATION}_count`, labels: { queue }, value: count },
  ]
}
