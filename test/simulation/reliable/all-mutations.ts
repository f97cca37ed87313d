/** Rules of queues of type `all`, broken on purpose: durable subscriptions and ephemeral ones. */
import type { Mutation } from '../mutants.ts'

export const ALL_MUTATIONS: readonly Mutation[] = [
  {
    breaks: 'a message is not stored for one of the durable subscriptions',
    file: 'core/named.ts',
    find: '.filter((line) => line.matches(topic))',
    replace: '.filter((line, at) => at > 0 && line.matches(topic))',
  },
  {
    breaks: 'a message is stored for a durable subscription that does not mean it',
    file: 'core/named.ts',
    find: '.filter((line) => line.matches(topic))',
    replace: ".filter(({ id }) => id !== '')",
  },
  {
    breaks: 'what was stored for several durable subscriptions is in one of them',
    file: 'store/memory-queues.ts',
    find: 'if (!isLeased) for (const line of places) line.add(message, dueAt)',
    replace: 'if (!isLeased) for (const line of places.slice(0, 1)) line.add(message, dueAt)',
  },
  {
    breaks: 'a confirm counts the durable subscriptions wrongly',
    file: 'core/publishing.ts',
    find: 'duplicate: false, subscriptions: result.entries }',
    replace: 'duplicate: false, subscriptions: result.entries + 1 }',
  },
  {
    breaks: 'a durable subscription is joined before it is there',
    file: 'core/named.ts',
    find: '    const forgets = known?.forgets ?? 0\n',
    replace:
      '    const forgets = known?.forgets ?? 0\n    if (known === undefined) then(step, this.#add(step, queue, { owner, name, filter, touchedAt: step.now }))\n',
  },
  {
    breaks: "a durable subscription is anybody's",
    file: 'core/lease-token.ts',
    find: '`${owner}/${name}`',
    replace: '`${owner.slice(0, 1)}/${name}`',
  },
  {
    breaks: 'durable subscriptions are not read after a restart',
    file: 'core/named.ts',
    find: '      if (found === undefined) continue\n',
    replace: "      if (found === undefined || found.name !== '') continue\n",
  },
  {
    breaks: 'what waits in durable subscriptions is not looked for after a restart',
    file: 'core/named.ts',
    find: '      if (counts.claimable > 0) line.add(WHOLE_LINE)\n',
    replace: '      if (counts.claimable < 0) line.add(WHOLE_LINE)\n',
  },
  {
    breaks: 'a forget does nothing',
    file: 'core/named.ts',
    find: "const op: StoreOp = { type: 'delete-subscription',",
    replace: "const op: StoreOp = { type: 'touch-subscription',",
  },
  {
    breaks: 'a forget is answered before it is done',
    file: 'core/named.ts',
    find: "    const op: StoreOp = { type: 'delete-subscription',",
    replace:
      "    this.#options.calls.count(queue.address, (step) => then(step, undefined))\n    const op: StoreOp = { type: 'delete-subscription',",
  },
  {
    breaks: 'what was in a forgotten subscription stays with its workers',
    file: 'core/named.ts',
    find: '    this.#options.leases().forget(queue, id)\n',
    replace: '',
  },
  {
    breaks: 'a durable subscription is joined that is about to be forgotten',
    file: 'core/named.ts',
    find: '    const forgets = known?.forgets ?? 0\n',
    replace: '    const forgets = known?.forgets ?? 0\n    if (known !== undefined) return then(step, known)\n',
  },
  {
    breaks: 'not everybody who listens is told',
    file: 'core/ephemeral.ts',
    find: 'const listeners = this.listeners(queue, item.topic)',
    replace: 'const listeners = this.listeners(queue, item.topic).slice(1)',
  },
  {
    breaks: 'whoever listens to something is told of everything',
    file: 'core/ephemeral.ts',
    find: "if (consumer.kind === 'reliable' && isListening(consumer, topic)) listeners",
    replace: "if (consumer.kind === 'reliable') listeners",
  },
  {
    breaks: 'what nobody listens to any more is handed out',
    file: 'core/ephemeral.ts',
    find: '    if (!isSubscribed(consumer)) {\n',
    replace: '    if (consumer.credit < 0) {\n',
  },
  {
    breaks: 'an ephemeral message comes again after its ack',
    file: 'core/ephemeral.ts',
    find: "    if (kind === 'nack') this.#again",
    replace: "    if (kind === 'nack' || kind === 'ack') this.#again",
  },
  {
    breaks: 'a nack of an ephemeral message counts no failure',
    file: 'core/ephemeral.ts',
    find: 'this.#again(step, lease, consumer, 1)',
    replace: 'this.#again(step, lease, consumer, 0)',
  },
  {
    breaks: 'an ephemeral message is tried for ever',
    file: 'core/ephemeral.ts',
    find: 'const isOver = failures >= consumer',
    replace: 'const isOver = -failures >= consumer',
  },
  {
    breaks: 'ephemeral subscribers get more than they take',
    file: 'core/ephemeral.ts',
    find: 'while (count < buffer.items.length && consumer.hasRoom) {',
    replace: 'while (count < buffer.items.length) {',
  },
  {
    breaks: 'an ephemeral message that was lost with its stream is not sent again',
    file: 'core/deliveries.ts',
    find: '      this.#options.onLost(step, lost)\n',
    replace: '      lost.length satisfies number\n',
  },
  {
    breaks: 'an ephemeral subscriber that did not answer once gets nothing more',
    file: 'core/deliveries.ts',
    find: '    if (handover === undefined) return\n',
    replace: '    if (handover === undefined || handover.leases.length > 0) return\n',
  },
  {
    breaks: 'a message has another time for those who listen than in the store',
    file: 'core/publishing.ts',
    find: '      at,\n      content,',
    replace: '      at: step.now,\n      content,',
  },
  {
    breaks: 'a sub that waited for the store counts as a sign of life, whatever became of its stream',
    file: 'core/consuming.ts',
    find: 'const isLate = queue.domain.isDown || queue.domain.epoch !== terms.epoch',
    replace: 'const isLate = queue.domain.isDown && !queue.domain.isDown',
  },
]
