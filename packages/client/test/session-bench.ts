/** A session on a virtual clock: the test is the world. */
import {
  childElements,
  element,
  findChild,
  NS_DISCO_INFO,
  NS_QUEUE,
  parseElement,
  stanza,
  writeElement,
  XML_ITEMS,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import {
  createOutgoing,
  createSession,
  type Effect,
  type Entropy,
  type Input,
  type OutgoingParts,
  type SessionEvent,
  type SessionRules,
} from '../src/session/index.ts'

export const OWN = 'w1@localhost/res'
export const QUEUE = 'queue1.localhost'

const RULES: SessionRules = {
  queue: QUEUE,
  domain: 'localhost',
  mode: 'auto',
  ttlSeconds: 60,
  backoffMs: { base: 500, max: 30_000 },
  answerTimeoutMs: 10_000,
  silenceMs: 30_000,
  leaveTimeoutMs: 3000,
  pendingMax: 4,
  pendingBytesMax: 1000,
  publishTimeoutMs: 5000,
  dedupeWindowMs: 600_000,
  credit: 16,
  workerInfo: undefined,
}

export class SessionBench {
  now = 1000
  unit = 0.5
  #ids = 0
  #ref = 0
  readonly session: ReturnType<typeof createSession>
  effects: Effect[] = []
  /** What a reliable queue says that it does. */
  features: readonly string[] = ['xmq:command', 'xmq:topic', 'xmq:queue:1']

  constructor(rules: Partial<SessionRules> = {}) {
    this.session = createSession({ ...RULES, ...rules })
  }

  readonly #entropy: Entropy = { id: () => `id${++this.#ids}`, unit: () => this.unit }

  /** Feeds an input and returns what came of it. */
  input(input: Input): Effect[] {
    this.effects = this.session.handle(input, this.now, this.#entropy)
    return this.effects
  }

  /** Starts, and comes up with the mode found by disco#info. */
  online(): Effect[] {
    this.input({ type: 'start' })
    const up = this.input({ type: 'up', jid: OWN })
    const ask = up.find((effect) => effect.type === 'send')
    return ask === undefined ? up : [...up, ...this.answer(ask.stanza, [disco(['xmq:command', 'xmq:topic'])])]
  }

  /** A connection is up, and the queue says that it is plain. @returns what came of that */
  plainAgain(): Effect[] {
    const [ask] = stanzas(this.input({ type: 'up', jid: OWN }))
    if (ask === undefined) throw new Error('The queue was not asked.')
    return this.answer(ask, [disco(['xmq:command', 'xmq:topic'])])
  }

  /** Starts, and comes up on a reliable queue. */
  reliable(): Effect[] {
    this.input({ type: 'start' })
    return this.up()
  }

  /** A connection is up; where it is asked what the queue is, it is reliable. */
  up(form: Readonly<Record<string, string>> = {}): Effect[] {
    const up = this.input({ type: 'up', jid: OWN })
    const ask = up.find((effect) => effect.type === 'send' && isDisco(effect.stanza))
    if (ask?.type !== 'send') return up
    return [...up, ...this.answer(ask.stanza, [disco(this.features, form)])]
  }

  /** The turn of the event loop is over. */
  turn(): Effect[] {
    return this.input({ type: 'turn' })
  }

  down(): Effect[] {
    return this.input({ type: 'down', reason: new XmqError('connection-lost', 'gone'), fatal: false })
  }

  /** Reconnects after a lost connection. */
  again(): Effect[] {
    this.pass(30_000)
    return this.up()
  }

  /** Lets time pass, tick by tick as the deadline says. */
  pass(ms: number): Effect[] {
    const until = this.now + ms
    const all: Effect[] = []
    for (let count = 0; count < 1000; count++) {
      const { deadline } = this.session
      if (deadline === undefined || deadline > until) break
      this.now = Math.max(this.now, deadline)
      all.push(...this.input({ type: 'tick' }))
    }
    this.now = until
    return all
  }

  receive(xml: string): Effect[] {
    return this.input({ type: 'stanza', stanza: parseElement(xml) })
  }

  /** The queue answers an IQ. */
  answer(iq: XmlElement, children: readonly XmlElement[] = [], from: string = QUEUE): Effect[] {
    const head = { type: 'result', id: iq.attrs.get('id'), from, to: OWN }
    return this.input({ type: 'stanza', stanza: stanza('iq', head, children) })
  }

  /** An error answers an IQ, as a server or mod_xmq writes it. */
  refuse(iq: XmlElement, condition: string, text = '', from: string = QUEUE): Effect[] {
    const ns = 'urn:ietf:params:xml:ns:xmpp-stanzas'
    return this.receive(
      `<iq type='error' id='${iq.attrs.get('id') ?? ''}' from='${from}' to='${OWN}'><error type='cancel'>` +
        `<${condition} xmlns='${ns}'/>${text === '' ? '' : `<text xmlns='${ns}'>${text}</text>`}</error></iq>`,
    )
  }

  publish(body = 'hi', timeoutMs = 5000): { ref: number; effects: Effect[] } {
    const ref = ++this.#ref
    const text = parseElement(`<message><body>${body}</body></message>`).children as XmlElement[]
    return this.publishMessage({ id: `m${ref}`, topic: 't', payload: text, isText: true }, timeoutMs, ref)
  }

  /** Publishes with any options. */
  publishMessage(
    parts: Omit<OutgoingParts, 'to'>,
    timeoutMs?: number,
    ref: number = ++this.#ref,
  ): { ref: number; effects: Effect[] } {
    const { codec } = this.session
    const message = createOutgoing({ ...parts, to: QUEUE }, codec === XML_ITEMS ? undefined : codec)
    return { ref, effects: this.input({ type: 'publish', ref, message, timeoutMs }) }
  }

  request(timeoutMs = 5000): { ref: number; stanza: XmlElement; effects: Effect[] } {
    const ref = ++this.#ref
    const iq = parseElement(`<iq type='get' to='${QUEUE}' id='r${ref}'><xmq xmlns='xmq:topic' topic='t'/></iq>`)
    return {
      ref,
      stanza: iq,
      effects: this.input({ type: 'request', ref, topic: 't', bytes: 100, stanza: iq, timeoutMs }),
    }
  }
}

/** Whether a stanza asks the queue what it is. */
export function isDisco(iq: XmlElement): boolean {
  return childElements(iq).some((child) => child.ns === NS_DISCO_INFO)
}

/** The stanzas among the effects that hold an element of `xmq:queue:1` with this name. */
export function holding(effects: readonly Effect[], name: string): XmlElement[] {
  return stanzas(effects).filter((root) => findChild(root, name, NS_QUEUE) !== undefined)
}

export function disco(features: readonly string[], form: Readonly<Record<string, string>> = {}): XmlElement {
  const data = 'jabber:x:data'
  const fields = Object.entries(form).map(([name, value]) =>
    element('field', data, { var: name }, [element('value', data, undefined, [value])]),
  )
  return element('query', NS_DISCO_INFO, undefined, [
    ...features.map((feature) => element('feature', NS_DISCO_INFO, { var: feature })),
    element('x', data, { type: 'result' }, fields),
  ])
}

/** What was sent, as XML. */
export function sent(effects: readonly Effect[]): string[] {
  return stanzas(effects).map((root) => writeElement(root))
}

export function stanzas(effects: readonly Effect[]): XmlElement[] {
  return effects.flatMap((effect) => (effect.type === 'send' ? [effect.stanza] : []))
}

/** The `sub` and `del` commands that were sent: "sub t load=0". */
export function commands(effects: readonly Effect[]): string[] {
  return stanzas(effects).flatMap((root) =>
    childElements(root)
      .filter((child) => child.ns === 'xmq:command')
      .map((child) => {
        const { attrs } = child
        const rest = attrs.get('command') === 'sub' ? ` ttl=${attrs.get('ttl')} load=${attrs.get('load')}` : ''
        return `${attrs.get('command')} ${attrs.get('topic')}${rest}`
      }),
  )
}

export function events(effects: readonly Effect[]): SessionEvent[] {
  return effects.flatMap((effect) => (effect.type === 'event' ? [effect.event] : []))
}

export function eventNames(effects: readonly Effect[]): string[] {
  return events(effects).map((event) => event.name)
}

/** How calls ended: "settled 1", "failed 2 timeout". */
export function verdicts(effects: readonly Effect[]): string[] {
  return effects.flatMap((effect) => {
    if (effect.type === 'settled') return [`settled ${effect.ref}`]
    return effect.type === 'failed' ? [`failed ${effect.ref} ${effect.error.code}`] : []
  })
}
