/** What is broken on purpose, one rule each. `find` stands exactly once in the file. */

export interface Mutation {
  /** Completes "the oracle notices when …". */
  readonly breaks: string
  /** Of packages/broker/src/core. */
  readonly file: string
  readonly find: string
  readonly replace: string
}

export const MUTATIONS: readonly Mutation[] = [
  {
    breaks: 'a load above 90 is served',
    file: 'subscriptions.ts',
    find: "if (subscription.load > LOAD_ELIGIBLE_MAX) return 'aside'",
    replace: "if (subscription.load > 95) return 'aside'",
  },
  {
    breaks: 'a subscription outlives its ttl',
    file: 'subscriptions.ts',
    find: 'return (Math.floor(now / 1000) + ttlSeconds + 1) * 1000',
    replace: 'return (Math.floor(now / 1000) + ttlSeconds + 3) * 1000',
  },
  {
    breaks: 'a subscription ends before its ttl',
    file: 'subscriptions.ts',
    find: 'return (Math.floor(now / 1000) + ttlSeconds + 1) * 1000',
    replace: 'return (Math.floor(now / 1000) + ttlSeconds - 1) * 1000',
  },
  {
    breaks: 'a renewal does not move the expiry',
    file: 'subscriptions.ts',
    find: '    this.#offer(subscription.consumer, terms)\n    this.#deadlines.set(subscription.expiry, expiryOf(step.now, terms.ttlSeconds))',
    replace: '    this.#offer(subscription.consumer, terms)',
  },
  {
    breaks: 'a renewal does not change the load',
    file: 'subscriptions.ts',
    find: '    subscription.load = terms.load\n    this.#offer(',
    replace: '    this.#offer(',
  },
  {
    breaks: 'the same subscriber is served again and again',
    file: 'turns.ts',
    find: '    first.turn = ++this.#turn\n    heap.settle(first)',
    replace: '    heap.settle(first)',
  },
  {
    breaks: 'doubted subscribers are forgotten when nobody else is there',
    file: 'turns.ts',
    find: 'return this.#takeFrom(this.#ready, tried) ?? this.#takeFrom(this.#doubted, tried)',
    replace: 'return this.#takeFrom(this.#ready, tried)',
  },
  {
    breaks: "'all' passes over doubted subscribers",
    file: 'turns.ts',
    find: '    for (const subscription of this.#doubted.members) visit(subscription)\n',
    replace: '',
  },
  {
    breaks: 'a worker that bounced a request is asked again',
    file: 'turns.ts',
    find: 'while (first !== undefined && tried?.has(first.consumer.session.jid) === true) {',
    replace: 'while (false as boolean && first !== undefined) {',
  },
  {
    breaks: 'one more subscription of an account than the cap is taken',
    file: 'subscriptions.ts',
    find: 'if (own >= rules.subscriptionsPerJidMax) {',
    replace: 'if (own > rules.subscriptionsPerJidMax) {',
  },
  {
    breaks: 'one more topic than the cap is taken',
    file: 'subscriptions.ts',
    find: 'topics >= rules.topicsMax',
    replace: 'topics > rules.topicsMax',
  },
  {
    breaks: "one more subscription than the broker's cap is taken",
    file: 'subscriptions.ts',
    find: 'if (this.#count < this.#max) return undefined',
    replace: 'if (this.#count <= this.#max) return undefined',
  },
  {
    breaks: 'an ended subscription still counts for its account',
    file: 'subscriptions.ts',
    find: 'if (own > 0) queue.subscriptionsByBare.set(session.bare, own)',
    replace: 'if (own >= 0) queue.subscriptionsByBare.set(session.bare, own + 1)',
  },
  {
    breaks: 'an ended subscription keeps its expiry',
    file: 'subscriptions.ts',
    find: '    this.#deadlines.clear(subscription.expiry)\n',
    replace: '',
  },
  {
    breaks: 'an answer counts from anybody',
    file: 'requests.ts',
    find: "if (request === undefined || request.worker?.jid !== attrs.get('from')) return undefined",
    replace: 'if (request === undefined) return undefined',
  },
  {
    breaks: "the requester's id is shown to the worker",
    file: 'requests.ts',
    find: 'request.hopId = step.entropy.id()',
    replace: "request.hopId = request.original.attrs.get('id') ?? ''",
  },
  {
    breaks: 'a fourth worker is asked',
    file: 'requests.ts',
    find: 'const TRIES_MAX = 3',
    replace: 'const TRIES_MAX = 4',
  },
  {
    breaks: "a worker's own refusal counts as a bounce",
    file: 'requests.ts',
    find: 'if (!fromBroker && BOUNCES.has(condition)) {',
    replace: 'if (BOUNCES.has(condition)) {',
  },
  {
    breaks: 'a bounce does not end the consumer’s subscriptions',
    file: 'requests.ts',
    find: "if (consumer !== undefined && condition !== 'service-unavailable') {",
    replace: 'if (false as boolean && consumer !== undefined) {',
  },
  {
    breaks: 'an answer that a live client gives ends its subscriptions',
    file: 'requests.ts',
    find: "if (consumer !== undefined && condition !== 'service-unavailable') {",
    replace: 'if (consumer !== undefined) {',
  },
  {
    breaks: 'an answered request keeps its timeout',
    file: 'requests.ts',
    find: '    this.#deadlines.clear(request.timeout)\n',
    replace: '',
  },
  {
    breaks: 'a request times out too early',
    file: 'requests.ts',
    find: 'step.now + requestTimeoutMs)',
    replace: 'step.now + requestTimeoutMs / 2)',
  },
  {
    breaks: 'one more open request of an account than its cap is taken',
    file: 'requests.ts',
    find: 'if (own >= this.#rules.openRequestsPerJidMax) {',
    replace: 'if (own > this.#rules.openRequestsPerJidMax) {',
  },
  {
    breaks: 'an answered request still counts for its account',
    file: 'requests.ts',
    find: 'if (others > 0) this.#openByBare.set(requester, others)',
    replace: 'if (others >= 0) this.#openByBare.set(requester, others + 1)',
  },
  {
    breaks: 'one more open request than the cap is taken',
    file: 'requests.ts',
    find: 'if (this.#open.size >= this.#rules.openRequestsMax) {',
    replace: 'if (this.#open.size > this.#rules.openRequestsMax) {',
  },
  {
    breaks: "a session's end answers nobody",
    file: 'requests.ts',
    find: "for (const request of session.requests) this.#fail(step, request, 'worker-gone', text)",
    replace: 'void text',
  },
  {
    breaks: 'an `unavailable` is believed without a ping',
    file: 'sessions.ts',
    find: '    this.#setDoubt(session, true)\n    const ping = session.ping\n',
    replace: "    if (reason === 'unavailable') return this.#end(step, session)\n    const ping = session.ping\n",
  },
  {
    breaks: 'an `unavailable` is ignored',
    file: 'sessions.ts',
    find: "      if (reason === 'unavailable') one.announced.delete(domain)\n      this.#doubt(step, one, reason, queue)",
    replace: "      if (reason !== 'unavailable') this.#doubt(step, one, reason, queue)",
  },
  {
    breaks: "a ping's answer counts from anybody",
    file: 'sessions.ts',
    find: "if (session === undefined || ping === undefined || session.jid !== iq.attrs.get('from')) return false",
    replace: 'if (session === undefined || ping === undefined) return false',
  },
  {
    breaks: 'a ping is given too little time',
    file: 'sessions.ts',
    find: '    this.#deadlines.set(session.pingTimeout, step.now + this.#rules.pingTimeoutMs)\n    step.send',
    replace: '    this.#deadlines.set(session.pingTimeout, step.now + this.#rules.pingTimeoutMs / 100)\n    step.send',
  },
  {
    breaks: 'a ping has no timeout',
    file: 'sessions.ts',
    find: '    this.#deadlines.set(session.pingTimeout, step.now + this.#rules.pingTimeoutMs)\n    step.send',
    replace: '    step.send',
  },
  {
    breaks: 'anybody may publish',
    file: 'core.ts',
    find: "if (!isAllowed(queue.publish, arrival.sender)) throw forbidden(arrival.sender, 'publish to', queue)",
    replace: '',
  },
  {
    breaks: 'anybody may consume',
    file: 'consuming.ts',
    find: "if (!isAllowed(queue.consume, sender)) throw forbidden(sender, 'consume from', queue)\n    if (iq",
    replace: 'if (iq',
  },
  {
    breaks: 'a longer ttl than the cap is taken',
    file: 'consuming.ts',
    find: 'if (ttlSeconds <= ttlSecondsMax) return',
    replace: 'if (ttlSeconds <= ttlSecondsMax + 1) return',
  },
  {
    breaks: 'a forged ofrom is passed on',
    file: 'message.ts',
    find: "return typeof node !== 'string' && node.name === 'address' && node.attrs.get('type') === 'ofrom'",
    replace: "return false && typeof node !== 'string'",
  },
  {
    breaks: 'a forged stanza-id is passed on',
    file: 'message.ts',
    find: "let isAddressed = false\n  for (const child of message.children) {\n    if (isElement(child, 'stanza-id', NS_STANZA_ID)) continue",
    replace:
      "let isAddressed = false\n  for (const child of message.children) {\n    if (isElement(child, 'no-such', NS_STANZA_ID)) continue",
  },
  {
    breaks: 'a delivery does not name the producer',
    file: 'message.ts',
    find: "{ type: 'ofrom', jid: producer }",
    replace: "{ type: 'to', jid: producer }",
  },
  {
    breaks: 'a delivery loses the id',
    file: 'message.ts',
    find: "if (delivery.id !== undefined) attrs.set('id', delivery.id)",
    replace: 'void delivery.id',
  },
  {
    breaks: 'deliveries may be stored and copied',
    file: 'message.ts',
    find: "if (findChild(message, 'no-copy', NS_HINTS) === undefined) children.push(NO_COPY)",
    replace: 'void NO_COPY',
  },
  {
    breaks: 'an error message is answered',
    file: 'core.ts',
    find: "if (stanza.attrs.get('type') === 'error') {\n      this.#handleMessageBounce(step, arrival)\n      return\n    }",
    replace: "if (stanza.attrs.get('type') === 'error') this.#handleMessageBounce(step, arrival)",
  },
  {
    breaks: 'an error is sent from another address',
    file: 'step.ts',
    find: 'this.send(domain, errorTo(stanza, error))',
    replace: "this.send(domain, errorTo({ ...stanza, attrs: new Map([...stanza.attrs, ['to', domain.name]]) }, error))",
  },
]
