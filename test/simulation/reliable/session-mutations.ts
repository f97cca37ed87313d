/** Rules of the client's session, broken on purpose. */
import type { Mutation } from '../mutants.ts'

export const SESSION_MUTATIONS: readonly Mutation[] = [
  {
    breaks: 'the session draws its own randomness',
    file: 'session/connection.ts',
    find: '    const pause = entropy.unit() * ceiling',
    replace: '    const pause = Math.random() * ceiling',
  },
  {
    breaks: 'what came back is sent again in another order',
    file: 'session/lineup.ts',
    find: 'this.#returned.sort((a, b) => b.ordinal - a.ordinal)',
    replace: 'this.#returned.sort((a, b) => a.ordinal - b.ordinal)',
  },
  {
    breaks: 'what is new goes before what came back',
    file: 'session/lineup.ts',
    find: 'return returned.ordinal < fresh.ordinal ? returned : fresh',
    replace: 'return fresh',
  },
  {
    breaks: 'two of one key are unconfirmed at a time',
    file: 'session/lineup.ts',
    find: '    if (last === undefined) {\n      this.#fresh.push(lined)',
    replace: '    if (last !== lined) {\n      this.#fresh.push(lined)',
  },
  {
    breaks: 'a batch that was on its way is forgotten when the connection ends',
    file: 'session/outbox.ts',
    find: '      this.#lineup.giveBack(entries)\n    }\n    this.#batches.clear()',
    replace: '      entries.length\n    }\n    this.#batches.clear()',
  },
  {
    breaks: 'batches mix encodings',
    file: 'session/outbox.ts',
    find: 'if (isOther || entries.length === BATCH_ITEMS_MAX) break',
    replace: 'if (isOther && entries.length === BATCH_ITEMS_MAX) break',
  },
  {
    breaks: 'a refused batch is forgotten',
    file: 'session/outbox.ts',
    find: '    this.#lineup.giveBack(entries)\n    this.#lastRefusal = reason',
    replace: '    this.#lastRefusal = reason',
  },
  {
    breaks: 'a publish counts as confirmed when it was sent',
    file: 'session/outbox.ts',
    find: '      if (!entry.wasSent) this.#sentFirst(entry, now)\n',
    replace:
      "      if (!entry.wasSent) this.#sentFirst(entry, now)\n      out.push({ type: 'settled', ref: entry.ref, answer: undefined, confirm: { seq: 1, durability: 'disk', duplicate: false, subscriptions: undefined } })\n",
  },
  {
    breaks: 'a message that was refused counts as confirmed',
    file: 'session/outbox.ts',
    find: "      if (answer?.status === 'stored') this.#stored(entry, answer, published.durability, out)\n      else if (answer !== undefined && answer.error.type",
    replace:
      "      if (answer !== undefined) this.#stored(entry, { ...answer, status: 'stored', seq: 1, duplicate: false }, published.durability, out)\n      else if (answer !== undefined && (answer as never as { error: XmqError }).error.type",
  },
  {
    breaks: 'a publish that may be stored fails as if it were not',
    file: 'session/outbox.ts',
    find: "      error = new XmqError('unconfirmed', text, { cause: reason })",
    replace: "      error = new XmqError('timeout', text, { cause: reason })",
  },
  {
    breaks: 'what one waits for of its key is never let go',
    file: 'session/lineup.ts',
    find: '    else this.#makeReady(next as Lined<Own>)',
    replace: '    else next.phase satisfies string',
  },
  {
    breaks: 'a message is acked before its handler has ended',
    file: 'session/leases.ts',
    find: '    this.#extendNotAfter(lease.extendAt)\n    return true',
    replace: "    this.#settlements.add({ seq, key }, { kind: 'ack', lease: lease.token })\n    return true",
  },
  {
    breaks: 'a message is handed out again while it is handled',
    file: 'session/leases.ts',
    find: "      out.push({ type: 'event', event: { name: 'duplicate', seq, topic, state: 'running' } })\n      return false",
    replace:
      "      out.push({ type: 'event', event: { name: 'duplicate', seq, topic, state: 'running' } })\n      return true",
  },
  {
    breaks: 'a message is handed out again after its ack',
    file: 'session/leases.ts',
    find: '    if (this.#finished.get(seq) === at) {',
    replace: '    if (this.#finished.get(-seq) === at) {',
  },
  {
    breaks: 'what is held is not declared on a new connection',
    file: 'session/leases.ts',
    find: '    for (const job of this.#jobs.values()) this.#extend(job, now)\n    this.#settlements.turn',
    replace: '    this.#settlements.turn',
  },
  {
    breaks: 'leases are not extended',
    file: 'session/leases.ts',
    find: 'const lease: Lease = { token: item.lease, leaseMs, extendAt: now + (leaseMs * 2) / 3 }',
    replace: 'const lease: Lease = { token: item.lease, leaseMs, extendAt: now + leaseMs * 20 }',
  },
  {
    breaks: 'a handler is not told that its lease is lost',
    file: 'session/leases.ts',
    find: "    out.push({ type: 'lease-lost', key, seq, error })\n",
    replace: '',
  },
  {
    breaks: 'a handler is stopped though another lease of its message lives',
    file: 'session/leases.ts',
    find: '    if (!wasThere || left.length > 0) return\n',
    replace: '    if (!wasThere) return\n',
  },
  {
    breaks: 'a delivery is answered when its handlers have ended, however long that takes',
    file: 'session/leases.ts',
    find: 'const RECEIVE_MS = 3',
    replace: 'const RECEIVE_MS = 30_000',
  },
  {
    breaks: 'deliveries are never answered',
    file: 'session/leases.ts',
    find: "      out.push({ type: 'send', stanza: resultTo(unreceived.iq, children) })",
    replace: '      children.length satisfies number',
  },
  {
    breaks: 'settlements are lost when the connection ends',
    file: 'session/settlements.ts',
    find: '      this.#giveBack(settled)\n    }\n    this.#batches.clear()',
    replace: '    }\n    this.#batches.clear()',
  },
  {
    breaks: 'acks that went with a receipt are forgotten when the connection ends',
    file: 'session/settlements.ts',
    find: '    this.#giveBack(unsure.map(({ settled }) => settled))\n',
    replace: '',
  },
  {
    breaks: 'settlements that were refused are forgotten',
    file: 'session/settlements.ts',
    find: '    this.#giveBack(batch)\n    this.#timers.set(SETTLE_PAUSE_TIMER',
    replace: '    this.#timers.set(SETTLE_PAUSE_TIMER',
  },
  {
    breaks: 'settlements that were never answered are forgotten',
    file: 'session/settlements.ts',
    find: '    this.#retry(settled, new XmqError',
    replace: '    this.#retry(settled.slice(0, 0), new XmqError',
  },
  {
    breaks: 'an earlier word about a lease takes the place of the last one',
    file: 'session/settlements.ts',
    find: "    if (earlier !== undefined && kind === 'extend') return\n",
    replace: '    if (earlier !== undefined) return\n',
  },
  {
    breaks: 'a lease is extended after its handler has ended',
    file: 'session/settlements.ts',
    find: "      if (settled.settlement.kind === 'extend' && !isLive(settled)) continue\n",
    replace: '',
  },
  {
    breaks: 'subscriptions are not made again on a new connection',
    file: 'session/subscriptions.ts',
    find: '    this.#greet(out)\n    for (const subscription of this.#byTopic.values()) this.#ask(subscription, mode, now, entropy, out)\n    this.#reports.reported(now)\n  }\n\n  /** The connection ended',
    replace:
      '    this.#greet(out)\n    for (const subscription of this.#byTopic.values()) if (!subscription.wasHeld) this.#ask(subscription, mode, now, entropy, out)\n    this.#reports.reported(now)\n  }\n\n  /** The connection ended',
  },
  {
    breaks: 'subscriptions are never renewed',
    file: 'session/subscriptions.ts',
    find: "      if (this.#renewId === '') this.#timers.set(RENEW_TIMER, now + this.#renewMs)\n",
    replace: '',
  },
  {
    breaks: 'a lost connection is not made again',
    file: 'session/connection.ts',
    find: '    this.#timers.set(RECONNECT_TIMER, retryAt)\n',
    replace: '',
  },
  {
    breaks: 'a connection over which nothing comes is never given up',
    file: 'session/liveness.ts',
    find: '    this.#timers.set(PONG_TIMER, now + this.#rules.answerTimeoutMs)\n',
    replace: '',
  },
  {
    breaks: 'answers count whoever they are from',
    file: 'session/session.ts',
    find: "    if (!fromQueue) {\n      ignore(iq, 'an answer from an address that was not asked', this.#out)\n      return\n    }\n    if (this.#detection",
    replace: '    if (this.#detection',
  },
  {
    breaks: 'a session says that it has named all, and has not',
    file: 'session/leases.ts',
    find: '    for (const job of this.#jobs.values()) this.#extend(job, now)\n    this.#settlements.turn',
    replace:
      '    if (!isNewLife) for (const job of this.#jobs.values()) this.#extend(job, now)\n    this.#settlements.turn',
  },
]
