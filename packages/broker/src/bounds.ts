/**
 * Every bound of the broker on what others can make grow: its name in the configuration or in the code, what happens at it, and the
 * metrics that show how full it is and what it refused. docs/operating.md prints this list, and a test compares the two.
 */

/** One bound. */
export interface Bound {
  /** What is bounded, for people. */
  readonly what: string
  /** The key of the configuration, or the constant. */
  readonly name: string
  /** As the configuration writes it. */
  readonly value: string
  /** What happens at it. */
  readonly outcome: string
  /** Metrics that show the fill, and what was refused or dropped. */
  readonly metrics: readonly string[]
}

const LIMIT = 'xmq_refused_total{code="limit-reached"}'
const OVERLOADED = 'xmq_refused_total{code="overloaded"}'
const TOO_LARGE = 'xmq_refused_total{code="too-large"}'

const bound = (what: string, name: string, value: string, outcome: string, ...metrics: readonly string[]): Bound =>
  Object.freeze({ what, name, value, outcome, metrics })

/** The list; see the top of this file. */
export const BOUNDS: readonly Bound[] = Object.freeze([
  bound('subscriptions', 'limits.maxSubscriptions', '100000', 'refused: `limit-reached`', 'xmq_subscriptions', LIMIT),
  bound('of one account', 'maxSubscriptionsPerJid', '1000', 'refused: `limit-reached`', 'xmq_subscriptions', LIMIT),
  bound('topics with subscribers', 'maxTopics', '10000', 'refused: `limit-reached`', 'xmq_topics', LIMIT),
  bound(
    'sessions known',
    'limits.maxSubscriptions + limits.maxOpenRequests',
    '110000',
    'presence of further ones is not noted',
    'xmq_sessions',
  ),
  bound(
    'open requests',
    'limits.maxOpenRequests',
    '10000',
    'refused: `limit-reached`',
    'xmq_requests_in_flight',
    LIMIT,
  ),
  bound(
    'of one account',
    'limits.maxOpenRequestsPerJid',
    '1000',
    'refused: `limit-reached`',
    'xmq_requests_in_flight',
    LIMIT,
  ),
  bound('news of one request', 'PROGRESS_MAX', '10000', 'further ones are dropped', 'xmq_ignored_total'),
  bound(
    'answers that wait for a stream',
    'limits.maxOpenRequests',
    '10000',
    'each is one of an open request',
    'xmq_held_answers',
  ),
  bound(
    'bytes on their way to the store',
    'limits.maxStoringBytes',
    '64MiB',
    'refused: `overloaded`',
    'xmq_storing_bytes',
    OVERLOADED,
  ),
  bound(
    'bytes that wait in the store for a commit',
    'WAITING_BYTES_MAX',
    '64MiB',
    'refused: `overloaded`',
    'xmq_store_waiting_bytes',
    OVERLOADED,
  ),
  bound(
    'event loop late by',
    'limits.maxLoopDelay',
    '2s',
    'new work refused: `overloaded`',
    'xmq_load_seconds',
    OVERLOADED,
  ),
  bound(
    'stanzas late by',
    'limits.maxInputDelay',
    '5s',
    'new work refused: `overloaded`',
    'xmq_load_seconds',
    OVERLOADED,
  ),
  bound(
    'commits late by',
    'limits.maxCommitTime',
    '2s',
    'new work refused: `overloaded`',
    'xmq_load_seconds',
    OVERLOADED,
  ),
  bound('stanzas put off', 'DEFERRED_MAX', '2000', 'all are handled at once', 'xmq_deferred_stanzas'),
  bound('bytes put off', 'DEFERRED_BYTES_MAX', '4MiB', 'all are handled at once', 'xmq_deferred_stanzas'),
  bound('publishes that the store has', 'PUBLISHING_OPS_MAX', '512', 'further ones wait', 'xmq_publishing_operations'),
  bound('claims for a domain that the store has', 'CLAIMS_MAX', '16', 'further ones wait', 'xmq_held_claims'),
  bound(
    'messages of a line',
    'maxLength',
    '1000000',
    'refused: `limit-reached`, or the oldest is a dead letter',
    'xmq_queue_messages',
    LIMIT,
  ),
  bound(
    'bytes of a line',
    'maxBytes',
    '1024MiB',
    'refused: `limit-reached`, or the oldest is a dead letter',
    'xmq_queue_bytes',
    LIMIT,
  ),
  bound('bytes of one message', 'maxPayload', '200KiB', 'refused: `too-large`', TOO_LARGE),
  bound(
    'dead letters of a line',
    'maxDead',
    '100000',
    'the oldest are dropped',
    'xmq_queue_messages',
    'xmq_dropped_total',
  ),
  bound('bytes of them', 'maxDeadBytes', '256MiB', 'the oldest are dropped', 'xmq_queue_bytes', 'xmq_dropped_total'),
  bound('ids remembered', 'maxDedupe', '1000000', 'the oldest is forgotten', 'xmq_remembered_ids'),
  bound(
    'acks remembered',
    'REPEATED_ACKS_MIN',
    '65536',
    'older ones are forgotten: repeated, they are answered `not-found`',
    'xmq_repeatable_acks',
  ),
  bound('durable subscriptions', 'maxNamed', '1000', 'refused: `limit-reached`', 'xmq_named_subscriptions', LIMIT),
  bound(
    'messages for an ephemeral subscriber',
    'ephemeralMax',
    '1000',
    'the oldest is dropped',
    'xmq_ephemeral_messages',
    'xmq_dropped_total',
  ),
  bound(
    'bytes of them',
    'ephemeralBytesMax',
    '16MiB',
    'the oldest is dropped',
    'xmq_ephemeral_bytes',
    'xmq_dropped_total',
  ),
  bound('messages that a worker holds', 'credit', 'its own word, at most 10000', 'it gets no more', 'xmq_leases'),
  bound('that a plain consumer holds', 'plainWindow', '256', 'it gets no more', 'xmq_leases'),
  bound(
    'deliver stanzas that it has not answered',
    'unreceivedMax',
    '4',
    'further ones wait',
    'xmq_unanswered_deliveries',
    'xmq_waiting_deliveries',
  ),
  bound(
    'reliable consumers of a queue called after a restart',
    'REMEMBERED_MAX',
    '10000',
    'the others go on with their next renewal',
    'xmq_remembered_consumers',
    'xmq_consumers',
  ),
  bound(
    'leases of an earlier life, of a queue',
    'FOUND_MAX',
    '100000',
    'the others end by their time',
    'xmq_found_leases',
  ),
  bound(
    'acks and rejects that the store has not heard',
    'UNHEARD_MAX',
    '65536',
    'the oldest is forgotten: its lease ends by its time',
    'xmq_unheard_settlements',
  ),
  bound(
    'topics known to be claimable',
    'CLAIMABLE_TOPICS_MAX',
    '100000',
    'the store is asked again for more',
    'xmq_claimable_topics',
  ),
  bound(
    'outbound bytes of a stream',
    'congestedBytes',
    '8MiB',
    'claims and fan-out wait; new work refused: `overloaded`',
    'xmq_link_outbound_bytes',
    OVERLOADED,
  ),
  bound(
    'outbound bytes of a stream',
    'outboundBytesMax',
    '64MiB',
    'the stream is closed and opened again',
    'xmq_link_outbound_bytes',
    'xmq_link_reconnects_total',
    'xmq_link_dropped_total',
  ),
  bound(
    'copies to many that wait for a stream',
    'FAN_OUT_HELD_MAX',
    '100000',
    'further ones are dropped',
    'xmq_held_deliveries',
    'xmq_dropped_total',
  ),
  bound(
    'bytes, depth and attributes of a stanza that is read',
    'stanzaBytesMax',
    '2MiB, 32, 64',
    'skipped; refused: `too-large`',
    'xmq_link_skipped_total',
    TOO_LARGE,
  ),
  bound(
    'connections for health and metrics',
    'CONNECTIONS_MAX',
    '64',
    'further ones are closed',
    'xmq_http_connections',
    'xmq_http_refused_total',
  ),
  bound('kinds of lines that the log counts', 'KINDS_MAX', '256', 'further ones are counted together', 'xmq_log_kinds'),
])
