/**
 * The world around the core: clients with sessions, a server that routes, delays and bounces, a component link that breaks.
 * Everything happens on a virtual clock, by one seed. The world knows the truth (which session lives); the oracle knows only
 * what passed the core.
 *
 *     client --(FIFO, delayed)--> core --(FIFO per client, delayed)--> client | bounce | nothing
 */
import {
  bareOf,
  childElements,
  element,
  encodeError,
  findChild,
  isPing,
  stanza,
  textOf,
  withAttrs,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import {
  type Core,
  type CoreRules,
  type Effect,
  type Input,
  OVERLOAD_DEFAULTS,
  RELIABLE_DEFAULTS,
} from '../../../packages/broker/src/core/port.ts'
import { Agenda } from '../agenda.ts'
import { withoutFailure } from '../foreign-error.ts'
import { createRandom, type Random } from '../random.ts'
import { Violation } from '../violation.ts'
import { Oracle } from './oracle.ts'

const RULES: CoreRules = {
  domains: ['jobs.localhost', 'news.localhost', 'xmq.localhost'],
  queues: [
    queue('jobs.localhost', 'any', {}),
    queue('news.localhost', 'all', {}),
    queue('orders@xmq.localhost', 'any', { topicsMax: 2, subscriptionsPerJidMax: 3, requestTimeoutMs: 4_000 }),
    queue('closed@xmq.localhost', 'any', { publish: ['p1@localhost'], consume: ['w1@localhost'] }),
    queue('open@xmq.localhost', 'all', { preserveFrom: true }),
    queue('tiny@xmq.localhost', 'any', { subscriptionsPerJidMax: 1 }),
  ],
  subscriptionsMax: 24,
  openRequestsMax: 12,
  openRequestsPerJidMax: 12,
  pingTimeoutMs: 5_000,
  pingIntervalMs: 20_000,
  software: { name: 'XMQ', version: '0.0.0' },
  durability: 'memory',
  bodyBytesMax: 8 * 1024 * 1024,
  storingBytesMax: 64 * 1024 * 1024,
  overload: OVERLOAD_DEFAULTS,
}

function queue(
  address: string,
  type: 'any' | 'all',
  changes: Partial<CoreRules['queues'][number]>,
): CoreRules['queues'][number] {
  return {
    address,
    type,
    publish: ['localhost'],
    consume: ['localhost'],
    admins: [],
    preserveFrom: false,
    requestTimeoutMs: 8_000,
    ttlSecondsMax: 60,
    payloadBytesMax: 10_000,
    topicsMax: 100,
    subscriptionsPerJidMax: 10,
    reliable: RELIABLE_DEFAULTS,
    ...changes,
  }
}

const ACCOUNTS = [
  'p1@localhost',
  'p2@localhost',
  'w1@localhost',
  'w2@localhost',
  'w3@localhost',
  'w4@localhost',
  'eve@evil.example',
]
// One topic and one queue are busy, so that turns go round; the others keep them apart.
const TOPICS = ['a', 'a', 'a', 'a', 'b', 'A', '__proto__']
const QUEUES = [...RULES.queues.map((rules) => rules.address), 'jobs.localhost', 'jobs.localhost', 'jobs.localhost']

/** What kind of world a seed gives: a cap that hardly binds, or workers that mostly work, would leave rules unmet. */
interface Mood {
  readonly subscriptionsMax: number
  readonly openRequestsMax: number
  readonly openRequestsPerJidMax: number
  /** Every worker refuses what it is asked, and stays. */
  readonly refusing: boolean
}

/** How a session treats what it is asked. */
interface Habits {
  readonly pings: 'answers' | 'unsupported' | 'silent'
  readonly requests: 'result' | 'error' | 'failure' | 'refuses' | 'silent'
  /** Sends directed presence before its first sub. */
  readonly announces: boolean
}

interface Session {
  readonly jid: string
  readonly habits: Habits
  alive: boolean
  readonly announcedTo: Set<string>
}

/** What a run came to. */
export interface RunReport {
  readonly seed: number
  readonly steps: number
  readonly seen: ReadonlyMap<string, number>
}

/** One seeded run. @throws Violation with the seed and the last inputs */
export function simulate(createCore: (rules: CoreRules) => Core, seed: number, trailLines = 12): RunReport {
  const world = new World(createCore, seed)
  try {
    return world.run(90_000)
  } catch (error) {
    const trail = world.trail.slice(-trailLines).join('\n  ')
    throw new Violation(
      `seed ${seed} at ${world.now} ms: ${error instanceof Error ? error.message : String(error)}\n  ${trail}`,
      { cause: error },
    )
  }
}

class World {
  readonly #random: Random
  readonly #entropy: Random
  readonly #core: Core
  readonly #oracle: Oracle
  readonly #seed: number
  readonly #mood: Mood
  readonly #sessions = new Map<string, Session>()
  readonly #arrivals = new Map<string, number>()
  readonly #agenda = new Agenda()
  readonly #linkUp = new Map<string, boolean>()
  /** Link breaks so far: proofs about timing hold only while the number stands still. */
  #breaks = 0
  #steps = 0
  #quiet = false
  #counter = 0
  now = 1_000_000
  readonly trail: string[] = []

  constructor(createCore: (rules: CoreRules) => Core, seed: number) {
    this.#seed = seed
    this.#random = createRandom(seed)
    this.#entropy = createRandom(seed ^ 0x5f3759df)
    this.#mood = {
      subscriptionsMax: this.#random.pick([3, 24, 24, 24]),
      openRequestsMax: this.#random.pick([1, 12, 12, 12]),
      openRequestsPerJidMax: this.#random.pick([1, 12, 12]),
      refusing: this.#random.chance(0.2),
    }
    const rules = { ...RULES, ...this.#mood }
    this.#core = createCore(rules)
    this.#oracle = new Oracle(rules)
  }

  run(horizonMs: number): RunReport {
    for (const domain of RULES.domains) this.#link(domain, true)
    for (const account of ACCOUNTS) this.#bind(account)
    const end = this.now + horizonMs
    this.#scheduleNextAction()
    this.#runUntil(end)
    this.#quiet = true
    for (const domain of RULES.domains) this.#link(domain, true)
    if (this.#random.chance(0.3)) this.#handle({ type: 'shutdown' })
    // Longest ttl, then a ping of whoever is left, and every timeout.
    this.#runUntil(end + 60_000 + 2 * (RULES.pingIntervalMs + RULES.pingTimeoutMs) + 10_000)
    this.#oracle.checkEnd(this.#core.stats())
    return { seed: this.#seed, steps: this.#steps, seen: this.#oracle.seen }
  }

  #at(delayMs: number, act: () => void): void {
    this.#agenda.add(this.now + delayMs, act)
  }

  #runUntil(end: number): void {
    let idleTicks = 0
    for (;;) {
      const next = this.#agenda.next ?? Number.POSITIVE_INFINITY
      const deadline = this.#core.deadline ?? Number.POSITIVE_INFINITY
      const at = Math.min(next, deadline)
      if (at > end) break
      if (deadline <= next) {
        // A timer fires late, never early.
        const late = this.#random.chance(0.2) ? Math.min(this.#random.int(40), Math.max(0, next - deadline)) : 0
        idleTicks = at + late > this.now ? 0 : idleTicks + 1
        if (idleTicks > 100) throw new Violation('ticks do not move the deadline')
        this.now = Math.max(this.now, at + late)
        this.#handle({ type: 'tick' })
      } else {
        idleTicks = 0
        const due = this.#agenda.take()
        if (due === undefined) break
        this.now = Math.max(this.now, due.at)
        due.act()
      }
    }
    this.now = Math.max(this.now, end)
  }

  #handle(input: Input): void {
    this.#steps++
    this.trail.push(`${this.now} ${describe(input)}`)
    const effects = pure(() => this.#core.handle(input, this.now, this.#entropy))
    for (const effect of effects)
      if (effect.type === 'event') this.trail.push(`${this.now}   ** ${JSON.stringify(effect.event)}`)
    this.#oracle.check(input, effects, this.now, this.#core.stats())
    for (const effect of effects) this.#apply(effect)
  }

  #apply(effect: Effect): void {
    if (effect.type !== 'send') return
    this.trail.push(`${this.now}   -> ${short(effect.stanza)}`)
    if (!this.#linkUp.get(effect.domain)) return
    const to = effect.stanza.attrs.get('to') ?? ''
    this.#inOrder(`out ${to}`, () => this.#receive(to, effect.stanza))
  }

  /** Streams keep their order: a later stanza never arrives before an earlier one of the same stream. */
  #inOrder(stream: string, act: () => void): void {
    const arrival = Math.max(this.now + Math.min(this.#random.gap(20), 400), this.#arrivals.get(stream) ?? 0)
    this.#arrivals.set(stream, arrival)
    this.#at(arrival - this.now, act)
  }

  /** A client's stanza on its way to the core, stamped by the server. */
  #toCore(session: Session, outgoing: XmlElement): void {
    const stamped = withAttrs(outgoing, { from: session.jid })
    this.#inOrder(`in ${session.jid}`, () => this.#arrive(stamped))
  }

  #arrive(arriving: XmlElement): void {
    const to = bareOf(arriving.attrs.get('to') ?? '')
    const domain = to.slice(to.indexOf('@') + 1)
    if (this.#linkUp.get(domain)) this.#handle({ type: 'stanza', stanza: arriving })
  }

  /** A stanza of the core arrives at the server's side of a client. */
  #receive(jid: string, incoming: XmlElement): void {
    const session = this.#sessions.get(jid)
    const type = incoming.attrs.get('type')
    if (session?.alive) {
      if (incoming.name === 'iq' && (type === 'get' || type === 'set')) this.#answer(session, incoming)
      return
    }
    if (type === 'error' || (incoming.name === 'iq' && type === 'result') || incoming.name === 'presence') return
    // RFC 6121 8.5.3.2: an IQ to a dead resource always bounces; a message may bounce, be re-routed, or vanish.
    if (incoming.name === 'message' && this.#random.chance(0.6)) return
    if (isPing(incoming) && this.#random.chance(0.3))
      this.#forge({ id: incoming.attrs.get('id'), to: incoming.attrs.get('from') })
    const bounce = stanza(
      incoming.name as 'iq',
      { type: 'error', id: incoming.attrs.get('id'), from: jid, to: incoming.attrs.get('from') },
      [
        withoutFailure(
          encodeError(
            new XmqError('unsupported', '', {
              condition: this.#random.pick([
                'service-unavailable',
                'service-unavailable',
                'recipient-unavailable',
                'gone',
              ]),
            }),
          ),
        ),
      ],
    )
    this.#inOrder(`in ${jid}`, () => this.#arrive(bounce))
  }

  #answer(session: Session, iq: XmlElement): void {
    const head = { id: iq.attrs.get('id'), to: iq.attrs.get('from') }
    const refuse = (code: 'unsupported' | 'handler-failed', failure: boolean): void => {
      const error = encodeError(new XmqError(code, 'no'))
      this.#toCore(session, stanza('iq', { ...head, type: 'error' }, [failure ? error : withoutFailure(error)]))
    }
    if (isPing(iq)) {
      if (session.habits.pings === 'answers') this.#toCore(session, stanza('iq', { ...head, type: 'result' }))
      if (session.habits.pings === 'unsupported') refuse('unsupported', false)
      return
    }
    // A stranger tries to answer first, and a result from the worker asked must still count.
    if (this.#random.chance(0.15)) this.#forge(head)
    const answer = (): void => {
      if (!session.alive) return
      switch (session.habits.requests) {
        case 'result':
          return this.#toCore(
            session,
            stanza('iq', { ...head, type: 'result' }, [element('answer', 'test', { n: String(this.#counter++) })]),
          )
        case 'error':
          return refuse('handler-failed', false)
        case 'failure':
          return refuse('unsupported', true)
        case 'refuses':
          // It lives on and comes straight back, while the request is on its way to others.
          refuse('unsupported', false)
          return this.#subscribe(session, head.to ?? '', topicOf(iq))
        case 'silent':
          return undefined
      }
    }
    this.#at(this.#random.gap(this.#random.chance(0.1) ? 6_000 : 300), answer)
  }

  #forge(head: { id: string | undefined; to: string | undefined }): void {
    const stranger = this.#anySession()
    if (stranger === undefined) return
    this.#toCore(
      stranger,
      stanza('iq', { ...head, type: this.#random.pick(['result', 'error']) }, [element('forged', 'test')]),
    )
  }

  #scheduleNextAction(): void {
    this.#at(this.#random.gap(250), () => {
      if (this.#quiet) return
      this.#act()
      this.#scheduleNextAction()
    })
  }

  #act(): void {
    const dice = this.#random.int(100)
    if (dice < 5) return this.#bindSomebody()
    if (dice < 10) return this.#vanish()
    if (dice < 12) return this.#breakLink()
    const session = this.#anySession()
    if (session === undefined) return
    if (dice < 40) return this.#command(session)
    if (dice < 66) {
      for (let burst = this.#random.chance(0.3) ? 8 : 1; burst > 0; burst--) this.#publish(session)
      return
    }
    if (dice < 90) return this.#request(session)
    this.#strange(session)
  }

  #anySession(): Session | undefined {
    const alive = [...this.#sessions.values()].filter((session) => session.alive)
    return alive.length === 0 ? undefined : this.#random.pick(alive)
  }

  #bindSomebody(): void {
    this.#bind(this.#random.pick(ACCOUNTS))
  }

  #bind(account: string): void {
    // Few resources, so that a full JID comes back while its old session's end is still on its way.
    const jid = `${account}/${this.#random.pick(['r1', 'r2'])}`
    if (this.#sessions.get(jid)?.alive) return
    const habits: Habits = {
      pings: this.#random.pick(['answers', 'answers', 'answers', 'unsupported', 'silent']),
      requests: this.#mood.refusing
        ? 'refuses'
        : this.#random.pick(['result', 'result', 'result', 'error', 'failure', 'refuses', 'silent']),
      announces: this.#random.chance(0.7),
    }
    this.#sessions.set(jid, { jid, habits, alive: true, announcedTo: new Set() })
  }

  #vanish(): void {
    const session = this.#anySession()
    if (session === undefined) return
    session.alive = false
    const late = this.#random.chance(0.3) ? 300 : 0
    for (const to of session.announcedTo) {
      // ejabberd often sends an old session's end after the new session's presence.
      this.#at(late, () =>
        this.#inOrder(`in ${session.jid}`, () => {
          this.#arrive(stanza('presence', { type: 'unavailable', from: session.jid, to }))
          // Only what the core was told, over links that stay up, can be held against it.
          const breaks = this.#breaks
          const heard = RULES.domains.every((domain) => this.#linkUp.get(domain))
          if (heard) this.#at(RULES.pingTimeoutMs + 1_000, () => this.#expectGone(session, breaks))
        }),
      )
    }
  }

  #expectGone(session: Session, breaks: number): void {
    const back = this.#sessions.get(session.jid) !== session
    if (back || breaks !== this.#breaks) return
    if (this.#oracle.holds(session.jid))
      throw new Violation(`${session.jid} is gone and said so, but keeps its subscriptions`)
  }

  #breakLink(): void {
    const domain = this.#random.pick(RULES.domains)
    if (!this.#linkUp.get(domain)) return
    this.#link(domain, false)
    this.#at(this.#random.gap(3_000), () => this.#link(domain, true))
  }

  #link(domain: string, up: boolean): void {
    if (this.#linkUp.get(domain) === up) return
    this.#linkUp.set(domain, up)
    if (!up) this.#breaks++
    this.#handle({ type: up ? 'link-up' : 'link-down', domain })
  }

  #command(session: Session): void {
    const to = this.#random.pick(QUEUES)
    const sub = this.#random.chance(0.85)
    if (session.habits.announces && sub && !session.announcedTo.has(to)) {
      session.announcedTo.add(to)
      this.#toCore(session, stanza('presence', { to }))
    }
    const attrs: Record<string, string | undefined> = sub
      ? {
          command: 'sub',
          topic: this.#random.pick(TOPICS),
          ttl: this.#random.pick(['0', '2', '5', '20', '60']),
          load: this.#random.pick(['0', '1', '50', '90', '91', '100']),
        }
      : { command: 'del', topic: this.#random.pick(TOPICS) }
    if (this.#random.chance(0.06))
      attrs[this.#random.pick(Object.keys(attrs))] = this.#random.pick(['', 'x', '61', '1e1', '101', ' 1'])
    this.#toCore(
      session,
      stanza('iq', { type: this.#random.chance(0.97) ? 'set' : 'get', id: this.#id(), to }, [
        element('xmq', 'xmq:command', attrs),
      ]),
    )
  }

  #subscribe(session: Session, to: string, topic: string): void {
    const sub = element('xmq', 'xmq:command', { command: 'sub', topic, ttl: '20', load: '1' })
    this.#toCore(session, stanza('iq', { type: 'set', id: this.#id(), to }, [sub]))
  }

  #publish(session: Session): void {
    const children = [
      element('body', 'jabber:client', undefined, [`message ${this.#counter++}`]),
      element('xmq', 'xmq:topic', { topic: this.#random.chance(0.97) ? this.#random.pick(TOPICS) : undefined }),
      ...(this.#random.chance(0.2) ? [element('extra', 'test', undefined, [element('deep', 'other'), 'text'])] : []),
      ...(this.#random.chance(0.1)
        ? [
            element('addresses', 'http://jabber.org/protocol/address', undefined, [
              element('address', 'http://jabber.org/protocol/address', { type: 'ofrom', jid: 'forged@localhost/x' }),
            ]),
          ]
        : []),
      ...(this.#random.chance(0.1)
        ? [element('stanza-id', 'urn:xmpp:sid:0', { id: 'forged', by: 'jobs.localhost' })]
        : []),
      ...(this.#random.chance(0.1) ? [element('no-store', 'urn:xmpp:hints')] : []),
    ]
    const type = this.#random.pick(['chat', 'normal', 'headline', undefined, 'error'])
    this.#toCore(
      session,
      stanza(
        'message',
        { type, id: this.#random.chance(0.9) ? this.#id() : undefined, to: this.#random.pick(QUEUES) },
        children,
      ),
    )
  }

  #request(session: Session): void {
    const topic = this.#random.pick(TOPICS)
    const query = element('query', 'test', { n: String(this.#counter++) })
    const children = this.#random.chance(0.5)
      ? [element('xmq', 'xmq:topic', { topic }, [query])]
      : this.#random.chance(0.5)
        ? [query, element('xmq', 'xmq:topic', { topic })]
        : [element('xmq', 'xmq:topic', { topic }), query]
    this.#toCore(
      session,
      stanza(
        'iq',
        { type: this.#random.pick(['get', 'set']), id: this.#id(), to: this.#random.pick(QUEUES) },
        children,
      ),
    )
  }

  /** What nobody should send, and everybody meets. */
  #strange(session: Session): void {
    const to = this.#random.pick([...QUEUES, ...RULES.domains, 'nobody@xmq.localhost'])
    const child = this.#random.pick([
      element('query', 'http://jabber.org/protocol/disco#info'),
      element('query', 'http://jabber.org/protocol/disco#items'),
      element('query', 'jabber:iq:version'),
      element('ping', 'urn:xmpp:ping'),
      element('query', 'jabber:iq:roster'),
      element('xmq', 'xmq:topic'),
      element('xmq', 'xmq:command'),
    ])
    const dice = this.#random.int(5)
    if (dice < 3)
      return this.#toCore(
        session,
        stanza(
          'iq',
          { type: this.#random.pick(['get', 'set']), id: this.#id(), to },
          this.#random.chance(0.9) ? [child] : [],
        ),
      )
    if (dice === 3)
      return this.#toCore(session, stanza('iq', { type: this.#random.pick(['result', 'error']), id: this.#id(), to }))
    // An unavailable that is not true: its sender lives on.
    this.#toCore(
      session,
      stanza('presence', { type: this.#random.pick(['unavailable', 'subscribe', 'probe', 'error', undefined]), to }),
    )
  }

  #id(): string {
    return `i${this.#counter++}`
  }
}

function topicOf(iq: XmlElement): string {
  return findChild(iq, 'xmq', 'xmq:topic')?.attrs.get('topic') ?? ''
}

function describe(input: Input): string {
  if (input.type === 'stanza') return short(input.stanza)
  return 'domain' in input ? `${input.type} ${input.domain}` : input.type
}

function short(root: XmlElement): string {
  const attrs = [...root.attrs].map(([name, value]) => `${name}=${value}`).join(' ')
  const inside = childElements(root).map((child) => {
    const text = findChild(child, 'text', 'urn:ietf:params:xml:ns:xmpp-stanzas')
    return `${child.name}[${[...child.attrs.values()].join(' ')}${text === undefined ? '' : ` "${textOf(text)}"`}]`
  })
  return `<${root.name} ${attrs}> ${inside.join(' ')}`
}

/** Runs pure code while clock, randomness and timers throw (design: purity is proved). */
function pure<T>(run: () => T): T {
  const forbidden = (name: string) => (): never => {
    throw new Violation(`the core used ${name}`)
  }
  const saved = {
    Date: globalThis.Date,
    random: Math.random,
    setTimeout: globalThis.setTimeout,
    queueMicrotask: globalThis.queueMicrotask,
  }
  Object.assign(globalThis, {
    Date: forbidden('Date'),
    setTimeout: forbidden('setTimeout'),
    queueMicrotask: forbidden('queueMicrotask'),
  })
  Math.random = forbidden('Math.random')
  try {
    return run()
  } finally {
    Object.assign(globalThis, { Date: saved.Date, setTimeout: saved.setTimeout, queueMicrotask: saved.queueMicrotask })
    Math.random = saved.random
  }
}
