/** Rules of core and store, broken on purpose. */
import type { Mutation } from '../mutants.ts'

export const BROKER_MUTATIONS: readonly Mutation[] = [
  {
    breaks: 'the core looks at a clock',
    file: 'core/core.ts',
    find: '    const step = new Step(now, entropy)\n    this.#handleDue(step)\n    switch',
    replace: '    const step = new Step(Date.now() > 0 ? now : 0, entropy)\n    this.#handleDue(step)\n    switch',
  },
  {
    breaks: 'a publish is confirmed before it is stored',
    file: 'core/publishing.ts',
    find: '      (later, results) => this.#stored(later, queue, head, { answers, prepared }, results),\n    )',
    replace:
      "      () => {},\n    )\n    this.#stored(step, queue, head, { answers, prepared }, prepared.map((_, at) => ({ status: 'ok', type: 'publish', seq: at + 1, entries: 1, dropped: [], leasedAt: undefined })))",
  },
  {
    breaks: 'a publish that the store refused is confirmed',
    file: 'core/publishing.ts',
    find: "      if (result?.status !== 'ok' || result.type !== 'publish') {\n        return { status: 'failed', id, error: refusalOf(queue, op, result) }\n      }\n      count++",
    replace:
      "      if (result?.status !== 'ok' || result.type !== 'publish') {\n        return { status: 'stored', id, seq: 1, duplicate: false }\n      }\n      count++",
  },
  {
    breaks: 'a message is never stored under its id',
    file: 'store/memory.ts',
    find: 'const earlier = op.id === undefined ? undefined : queue.dedupe.find(op, this.#now)',
    replace: 'const earlier = op.id !== undefined ? undefined : queue.dedupe.find(op, this.#now)',
  },
  {
    breaks: 'the key of a message is lost',
    file: 'core/publishing.ts',
    find: '      key,\n      priority,\n      delayUntil,',
    replace: '      key: undefined,\n      priority,\n      delayUntil,',
  },
  {
    breaks: 'the ttl of a message is lost',
    file: 'core/publishing.ts',
    find: 'const expiresAt = ttlMs === undefined ? undefined : step.now + ttlMs',
    replace: 'const expiresAt = undefined as number | undefined',
  },
  {
    breaks: 'the order of a key is ignored',
    file: 'store/memory-line.ts',
    find: "if (state === 'ready' && entry.previous === undefined) this.#offer(entry, topic)",
    replace: "if (state === 'ready') this.#offer(entry, topic)",
  },
  {
    breaks: 'bytes on their way to the store are counted for ever',
    file: 'core/publishing.ts',
    find: '      this.#storing -= bytes\n      then(later, results)',
    replace: '      then(later, results)',
  },
  {
    breaks: 'a message goes to whom it was granted, also where it waits',
    file: 'core/publishing.ts',
    find: "if (result?.status !== 'ok' || result.type !== 'publish' || result.leasedAt === undefined) return undefined",
    replace: "if (result?.status !== 'ok' || result.type !== 'publish') return undefined",
  },
  {
    breaks: 'room that was kept for a publish is never free again',
    file: 'core/dispatch.ts',
    find: '    consumer.reserved--\n    if (!isUsed) giveBackTurn(seat, turn)',
    replace: '    if (!isUsed) giveBackTurn(seat, turn)',
  },
  {
    breaks: 'a message is leased with its publish though its key is taken',
    file: 'store/memory-line.ts',
    find: '(key === undefined || topic?.chains.has(key) !== true)',
    replace: '(key === undefined || topic !== undefined)',
  },
  {
    breaks: 'credit is ignored',
    file: 'core/records.ts',
    find: 'this.inFlight >= this.credit) return false',
    replace: 'this.inFlight >= this.credit + 1) return false',
  },
  {
    breaks: 'what is asked for does not count against the credit',
    file: 'core/records.ts',
    find: 'return this.leases.size + this.reserved + this.openRequests',
    replace: 'return this.leases.size + this.openRequests',
  },
  {
    breaks: 'a lease never ends by its time',
    file: 'core/store-time.ts',
    find: '    return this.#options.leases().over(step, entry, askedAt)\n',
    replace: '    return undefined\n',
  },
  {
    breaks: 'what an earlier life has leased is released before its worker has said what it holds',
    file: 'core/found.ts',
    find: '          remains.leases.set(token, { ref, standing: entry, holder })\n',
    replace: '          this.#options.leases.apply([afterRelease(ref, entry)])\n',
  },
  {
    breaks: 'a session answers for the leases of another one of its account',
    file: 'core/found.ts',
    find: '      if (holder !== bare || !token.endsWith(mark)) continue\n',
    replace: "      if (holder !== bare || mark === '') continue\n",
  },
  {
    breaks: 'what a worker has settled after a restart is released to others',
    file: 'core/found.ts',
    find: '    remains.leases.delete(token)\n    remains.named?.add(token)\n',
    replace: '',
  },
  {
    breaks: 'a lease ends though its worker has just extended it',
    file: 'core/leases.ts',
    find: '    if (lease.touchedAt >= askedAt) return undefined\n',
    replace: '',
  },
  {
    breaks: 'a lease over before it was received counts as a failure',
    file: 'core/leases.ts',
    find: '    if (!lease.isReceived) return afterRelease(ref, entry)\n',
    replace: '',
  },
  {
    breaks: 'a lease of an earlier life is never found',
    file: 'core/leases.ts',
    find: '      return afterRelease(ref, entry)\n    }\n    if (lease.touchedAt',
    replace: '      return undefined\n    }\n    if (lease.touchedAt',
  },
  {
    breaks: 'a session end gives back what was received without a failure',
    file: 'core/leases.ts',
    find: "else if (outcome === 'session-ended' && lease.isReceived) this.#fail(step, lease, ops)",
    replace: 'else if (false as boolean) this.#fail(step, lease, ops)',
  },
  {
    breaks: 'an ack is ignored',
    file: 'core/settling.ts',
    find: "    if (settlement.kind === 'ack') return ackOf(ref)\n",
    replace: "    if (settlement.kind === 'ack') return { ...ref, type: 'received', leaseMs: 1000 }\n",
  },
  {
    breaks: 'acks are answered and not done',
    file: 'core/settling.ts',
    find: '    if (planned.length === 0) {',
    replace: "    if (planned.every(({ op }) => op.type === 'ack')) {",
  },
  {
    breaks: 'settlements are answered before the store has done them',
    file: 'core/settling.ts',
    find: '      this.#conclude(later, batch, planned, results)\n      onDone(later, failed)\n    })',
    replace: '      this.#conclude(later, batch, planned, results)\n    })\n    onDone(step, failed)',
  },
  {
    breaks: 'a settlement that failed is not told',
    file: 'core/settling.ts',
    find: '      failed.push({ lease: settlement.lease, error })\n      if (lease !== undefined &&',
    replace: '      if (error === undefined) continue\n      if (lease !== undefined &&',
  },
  {
    breaks: 'a lease may be settled by anybody who knows it',
    file: 'core/settling.ts',
    find: 'const ref: LeaseRef = { queue: queue.address, subscription, seq: wire.seq, token: wire.token, holder }',
    replace:
      'const ref: LeaseRef = { queue: queue.address, subscription, seq: wire.seq, token: wire.token, holder: undefined }',
  },
  {
    breaks: 'the store does not look at the holder',
    file: 'store/memory.ts',
    find: 'return op.holder === undefined || op.holder === entry.holder ? entry : undefined',
    replace: 'return entry',
  },
  {
    breaks: 'the token of a lease is not checked',
    file: 'store/memory.ts',
    find: 'if (entry === undefined || entry.token !== op.token) return undefined',
    replace: 'if (entry === undefined) return undefined',
  },
  {
    breaks: 'a release counts as a failure',
    file: 'core/settling.ts',
    find: "    if (settlement.kind === 'release') return afterRelease(ref, standing)\n",
    replace:
      "    if (settlement.kind === 'release') return this.#op(step, queue, { kind: 'nack', lease: settlement.lease, delayMs: undefined, why: '' }, ref, standing)\n",
  },
  {
    breaks: 'a nack counts no failure',
    file: 'core/backoff.ts',
    find: '  const failures = standing.failures + 1\n',
    replace: '  const failures = standing.failures\n',
  },
  {
    breaks: 'attempts are unbounded',
    file: 'core/backoff.ts',
    find: "  if (failures >= rules.maxAttempts) return { ...dead, reason: 'max-attempts' }\n",
    replace: '',
  },
  {
    breaks: 'a message is given up one attempt too early',
    file: 'core/backoff.ts',
    find: 'if (failures >= rules.maxAttempts)',
    replace: 'if (failures + 1 >= rules.maxAttempts)',
  },
  {
    breaks: 'a dead letter is lost',
    file: 'store/memory.ts',
    find: "    entry.line.move(entry, 'dead', this.#now)",
    replace: "    entry.line.move(entry, 'gone', this.#now)",
  },
  {
    breaks: 'a message goes to somebody who has gone, and stays with them',
    file: 'core/deliveries.ts',
    find: '    if (consumer.subscriptions.size === 0 || queue.consumers.get(consumer.session.jid) !== consumer) {\n      return afterRelease(refOf(lease), standing)\n    }\n',
    replace: '',
  },
  {
    breaks: 'what a worker refused stays with it',
    file: 'core/deliveries.ts',
    find: "    this.#options.leases.giveBack(step, leases, 'bounced')\n    this.#options.subscriptions.endConsumer(step, consumer, 'bounced')\n    this.unsubscribed(step, consumer)",
    replace:
      "    for (const lease of leases) this.#options.leases.remove(lease)\n    this.#options.subscriptions.endConsumer(step, consumer, 'bounced')\n    this.unsubscribed(step, consumer)",
  },
  {
    breaks: 'a message is delivered twice under one lease',
    file: 'core/deliveries.ts',
    find: '    consumer.waiting = waiting.slice(at)\n',
    replace:
      "    consumer.waiting = waiting.slice(at)\n    for (const [, handover] of [...consumer.handovers].slice(0, 1)) {\n      const again = handover.leases[0]\n      if (again !== undefined && step.entropy.unit() < 0.05)\n        step.send(queue.domain, stanza('iq', { type: 'set', id: step.entropy.id(), from: queue.address, to: consumer.session.jid }, [encodeDeliver(queue.rules.reliable.leaseMs, [XML_ITEMS.writeDeliveredItem({ lease: formatLease(again), seq: again.seq, topic: 'a', id: 'x', from: 'p1@localhost/a', at: 0, attempt: 1, failures: 0, content: { body: '', extras: '', bytes: 0 } as never })])]))\n    }\n",
  },
  {
    breaks: 'a delivery counts a wrong attempt',
    file: 'core/deliveries.ts',
    find: 'attempt: deliveries, failures }\n    return this.enqueue',
    replace: 'attempt: 1, failures }\n    return this.enqueue',
  },
  {
    breaks: 'an empty topic is claimed again and again',
    file: 'core/dispatch.ts',
    find: '        for (const topic of topics) if (!line.fresh.has(topic)) line.remove(topic)\n',
    replace: '        line.rotate(coverage, topics)\n',
  },
  {
    breaks: 'what became claimable during a claim is forgotten',
    file: 'core/dispatch.ts',
    find: 'if (!line.fresh.has(topic)) line.remove(topic)',
    replace: 'line.remove(topic)',
  },
  {
    breaks: 'a claim that the store did not answer is not made again',
    file: 'core/dispatch.ts',
    find: '      this.#options.deadlines.set(line.again, step.now + STORE_RETRY_MS)\n',
    replace: '',
  },
  {
    breaks: 'what is asked for is never given back to the credit',
    file: 'core/dispatch.ts',
    find: '    for (const consumer of takers) consumer.reserved--\n',
    replace: '',
  },
  {
    breaks: 'a lease is extended for ever',
    file: 'store/memory.ts',
    find: 'const wanted = Math.min(this.#now + op.leaseMs, latest)',
    replace: 'const wanted = this.#now + op.leaseMs',
  },
  {
    breaks: 'an id is forgotten with its message',
    file: 'store/memory-dedupe.ts',
    find: '    record.hasMessage = false\n    if (record.until <= now) this.#forget(record)',
    replace: '    record.hasMessage = false\n    this.#forget(record)',
  },
  {
    breaks: 'an id is forgotten though its message is there',
    file: 'store/memory-dedupe.ts',
    find: '(!record.hasMessage && record.until <= now)',
    replace: 'record.until <= now',
  },
  {
    breaks: 'a full queue takes more',
    file: 'store/memory.ts',
    find: '  if (!isFull()) return { drops: [] }\n',
    replace: '  if (target.maxLength > 0) return { drops: [] }\n',
  },
  {
    breaks: 'the newest gives way in a full queue',
    file: 'store/memory.ts',
    find: 'of line.ready.list(OVERFLOW_DROPS_MAX, () => true)) {',
    replace: 'of [...line.ready.list(1_000, () => true)].reverse()) {',
  },
  {
    breaks: 'what gives way in a full queue is lost',
    file: 'store/memory.ts',
    find: "    for (const entry of drops) this.#kill(entry, 'overflow', '', 'overflow')\n",
    replace: "    for (const entry of drops) entry.line.move(entry, 'gone')\n",
  },
  {
    breaks: 'what is replayed keeps its failures',
    file: 'store/memory.ts',
    find: '    entry.failures = 0\n    entry.deliveries = 0\n',
    replace: '    entry.deliveries = 0\n',
  },
  {
    breaks: 'what is replayed keeps its ttl',
    file: 'store/memory.ts',
    find: '    entry.expiresAt = undefined\n    entry.hasCountedFailure = false\n',
    replace: '    entry.hasCountedFailure = false\n',
  },
  {
    breaks: 'a purge takes what is alive',
    file: 'store/memory.ts',
    find: 'if (seq <= op.after || entry.state !== op.state) continue',
    replace: 'if (seq <= op.after) continue',
  },
  {
    breaks: 'everybody may order what becomes of dead letters',
    file: 'core/verbs.ts',
    find: "    if (!isAllowed(queue.admins, sender)) throw forbidden(sender, 'administer', queue)\n",
    replace: '',
  },
  {
    breaks: 'an order is answered before it is done',
    file: 'core/admin.ts',
    find: '    const ops = seqs.map((seq) => orderOp(queue, line, action, seq))\n    this.#options.calls.apply(ops, (step, results) => {',
    replace:
      "    const ops = seqs.map((seq) => orderOp(queue, line, action, seq))\n    this.#options.calls.apply(ops, () => {})\n    this.#options.calls.count(queue.address, (step) => {\n      const results: readonly StoreResult[] = seqs.map(() => ({ status: 'ok', type: 'discard' }))",
  },
]
