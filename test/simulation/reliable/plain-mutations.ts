/** Rules for plain clients beside reliable ones, broken on purpose. */
import type { Mutation } from '../mutants.ts'

export const PLAIN_SIDE_MUTATIONS: readonly Mutation[] = [
  {
    breaks: 'a plain message is acked before anything says that it arrived',
    file: 'core/deliveries.ts',
    find: "if (this.#options.durability === 'memory' || session.answersPings === false) {",
    replace: "if (this.#options.durability === 'memory' || session.answersPings !== undefined) {",
  },
  {
    breaks: 'a ping that finds nobody proves that messages arrived',
    file: 'core/deliveries.ts',
    find: "      (condition !== 'service-unavailable' || session.answersPings !== false)\n",
    replace: "      (condition !== 'service-unavailable' || session.answersPings === false)\n",
  },
  {
    breaks: 'a ping proves what was sent over the stream before',
    file: 'core/deliveries.ts',
    find: "        if (consumer.kind === 'plain') consumer.waiting = consumer.waiting.filter(({ item }) => item !== undefined)\n",
    replace: "        if (consumer.kind === 'plain') consumer.waiting = consumer.waiting.filter(() => true)\n",
  },
  {
    breaks: 'a ping proves what was sent after it',
    file: 'core/deliveries.ts',
    find: '    const leases = handover.leases.filter((lease) => this.#options.leases.has(lease))\n',
    replace:
      '    const leases = [...handover.leases, ...consumer.waiting].filter((lease) => this.#options.leases.has(lease))\n',
  },
  {
    breaks: "a ping's answer counts from anybody",
    file: 'core/deliveries.ts',
    find: "if (consumer === undefined || consumer.session.jid !== iq.attrs.get('from')) return false",
    replace: 'if (consumer === undefined) return false',
  },
  {
    breaks: 'what a plain consumer has is not acked',
    file: 'core/deliveries.ts',
    find: "const ops = leases.map((lease): StoreOp => ({ ...refOf(lease), type: 'ack' }))",
    replace: "const ops = leases.map((lease): StoreOp => ({ ...refOf(lease), type: 'release' }))",
  },
  {
    breaks: 'a message that comes back stays where it was',
    file: 'core/arrivals.ts',
    find: '    this.#deliveries.bounced(step, consumer)\n',
    replace: '',
  },
  {
    breaks: 'what a plain consumer had stays with it when its session has ended',
    file: 'core/deliveries.ts',
    find: "      this.#options.leases.giveBack(step, left, 'session-ended')\n",
    replace: "      if (consumer.kind === 'reliable') this.#options.leases.giveBack(step, left, 'session-ended')\n",
  },
  {
    breaks: 'a plain consumer gets more than its window',
    file: 'core/subscriptions.ts',
    find: '      consumer.credit = consumer.queue.rules.reliable.plainWindow\n',
    replace: '      consumer.credit = consumer.queue.rules.reliable.plainWindow + 1\n',
  },
  {
    breaks: 'a plain consumer that is full gets messages',
    file: 'core/dispatch.ts',
    find: "if (target === undefined || (consumer.kind === 'plain' && load > LOAD_ELIGIBLE_MAX)) continue",
    replace: "if (target === undefined || (consumer.kind === 'plain' && load > LOAD_ELIGIBLE_MAX + 5)) continue",
  },
  {
    breaks: 'a plain subscriber of everything that is full gets messages',
    file: 'core/subscriptions.ts',
    find: "if (subscription.load > LOAD_ELIGIBLE_MAX) return 'aside'",
    replace: "if (subscription.load > LOAD_ELIGIBLE_MAX + 5) return 'aside'",
  },
  {
    breaks: 'a plain subscription outlives its time',
    file: 'core/subscriptions.ts',
    find: 'return (Math.floor(now / 1000) + ttlSeconds + 1) * 1000',
    replace: 'return (Math.floor(now / 1000) + ttlSeconds + 4) * 1000',
  },
  {
    breaks: 'a plain subscription ends before its time',
    file: 'core/subscriptions.ts',
    find: 'return (Math.floor(now / 1000) + ttlSeconds + 1) * 1000',
    replace: 'return (Math.floor(now / 1000) + ttlSeconds - 1) * 1000',
  },
  {
    breaks: 'a `del` does nothing',
    file: 'core/consuming.ts',
    find: "    if (subscription !== undefined) this.end(step, subscription, 'deleted')\n",
    replace: '',
  },
  {
    breaks: 'a plain message is passed on and stored',
    file: 'core/publishing.ts',
    find: "        step.emit({ name: 'published', queue: queue.address, topic, recipients: 1 })\n        return\n",
    replace: "        step.emit({ name: 'published', queue: queue.address, topic, recipients: 1 })\n",
  },
  {
    breaks: 'a plain message is neither stored nor passed on',
    file: 'core/publishing.ts',
    find: '    this.#storeMessage(step, queue, topic, message, () => {})\n',
    replace: '    if (keeps) this.#storeMessage(step, queue, topic, message, () => {})\n',
  },
  {
    breaks: 'a plain message is refused though somebody is there',
    file: 'core/publishing.ts',
    find: '    if (!keeps && !this.#hasAnybody(queue, topic)) throw',
    replace: '    if (!keeps) throw',
  },
  {
    breaks: 'a plain message is refused though it is to be kept',
    file: 'core/publishing.ts',
    find: '    if (!keeps && !this.#hasAnybody(queue, topic)) throw',
    replace: '    if (!this.#hasAnybody(queue, topic)) throw',
  },
  {
    breaks: 'nobody is told of a plain message that was not stored',
    file: 'core/publishing.ts',
    find: '        later.refuse(queue.domain, queue.address, message, refusalOf(queue, op, result))\n',
    replace: '',
  },
  {
    breaks: 'plain subscribers are not told of what is stored',
    file: 'core/publishing.ts',
    find: '      this.#fanOut(later, queue, topic, () => prepare(queue, message))\n',
    replace: '',
  },
  {
    breaks: 'plain subscribers are not told of items',
    file: 'core/publishing.ts',
    find: '    this.#fanOut(step, queue, topic, () => preparePlain(queue, { topic, id, content, from }))\n',
    replace: '',
  },
  {
    breaks: 'reliable subscribers get plain messages, too',
    file: 'core/publishing.ts',
    find: "      if (consumer.kind !== 'plain') return\n",
    replace: '',
  },
  {
    breaks: 'subscribers whose sessions are in doubt are passed over',
    file: 'core/turns.ts',
    find: '    for (const subscription of this.#doubted.members) visit(subscription)\n',
    replace: '',
  },
  {
    breaks: 'what a producer may not say is stored',
    file: 'core/publishing.ts',
    find: 'decodeQueuedMessage(withoutForgeries(message))',
    replace: 'decodeQueuedMessage(message)',
  },
  {
    breaks: 'a stored message is from another producer',
    file: 'core/deliveries.ts',
    find: 'const original = encodeQueuedMessage(message, { from: message.from })',
    replace: "const original = encodeQueuedMessage(message, { from: 'somebody@localhost/x' })",
  },
  {
    breaks: 'a stored message loses what was beside its payload',
    file: 'core/publishing.ts',
    find: 'decodeQueuedMessage(withoutForgeries(message))',
    replace:
      "decodeQueuedMessage(withoutForgeries(withChildren(message, message.children.filter((child) => typeof child !== 'string' && child.name !== 'subject'))))",
  },
  {
    breaks: 'what was acked for a plain consumer while the store did not answer is forgotten',
    file: 'core/leases.ts',
    find: "        if (results[at]?.status === 'unavailable' && isFinal(op)) this.#options.unheard.keep(step, op, true)\n",
    replace:
      "        if (results[at]?.status === 'unavailable' && isFinal(op) && op.holder !== undefined) this.#options.unheard.keep(step, op, true)\n",
  },
]
