/**
 * The XMPP server of the simulation, and every stream to it.
 *
 *     client --(in order of its stream)--> server --> core        core --(in order of each client)--> client | bounce | nothing
 *
 * A stream is bound to a full JID on the server and open at its client; the two ends learn of its end at different times:
 *
 * | end | the client | the server |
 * |---|---|---|
 * | closed, reset | at once | at once: `unavailable` to whom it sent directed presence |
 * | half open at the client | later, or by asking | at once |
 * | half open at the server | at once | later: what it writes until then is lost |
 * | the server crashed | at once | at once, and tells nobody |
 *
 * What was on its way to the core when a stream broke arrives or is lost; two streams of one account know no order.
 */
import { childElements, element, isPing, NS_QUEUE, resultTo, stanza, withAttrs, type XmlElement } from '@xmq/protocol'
import type { Random } from '../random.ts'
import { spokenIn } from './spoken.ts'

const NS_STANZAS = 'urn:ietf:params:xml:ns:xmpp-stanzas'
const SERVER = 'localhost'
/** What servers answer for somebody who is not there. */
const NOBODY = ['service-unavailable', 'service-unavailable', 'recipient-unavailable', 'gone'] as const
/** What they answer for a component that is not there. */
const NO_COMPONENT = ['remote-server-not-found', 'remote-server-timeout', 'service-unavailable'] as const

/** Who has a stream. */
export interface StreamOwner {
  receive(incoming: XmlElement): void
  /** The client's end noticed that it is over. */
  ended(): void
}

/** What the network needs of the world. */
export interface NetworkHost {
  readonly random: Random
  readonly now: () => number
  readonly at: (at: number, act: () => void) => void
  /** A stanza reaches the core. */
  readonly toCore: (arrived: XmlElement) => void
  readonly link: (isUp: boolean) => void
  readonly note: (what: string) => void
}

/** One client's stream. Its only owner is the network. */
export interface Stream {
  readonly jid: string
  readonly owner: StreamOwner
  /** The server routes to it. */
  isBound: boolean
  /** Its client reads and writes. */
  isOpen: boolean
  /** Queues that directed presence went to over it. */
  readonly announced: Set<string>
  /** What is on its way to the core is lost. */
  isLost: boolean
}

/** How a stream breaks. */
export type Break = 'reset' | 'half-open client' | 'half-open server'

/** See the top of this file. */
export class Network {
  /** Chance of a stanza to arrive twice, as after a resumed stream. */
  duplicates = 0
  /** Told of each stanza that will. */
  onDoubled: (outgoing: XmlElement) => void = () => {}
  /** Chance of an answer by somebody who was not asked, under an id that nobody could know. */
  forgeries = 0
  /** Chance of an answer to what the core asks somebody, or of news of it, by somebody else. */
  strangers = 0
  /** Chance of a message to nobody to be dropped, not returned. */
  vanishes = 0
  /** Chance of what the core wrote to be lost when its stream ends before it has arrived. */
  linkLosses = 0
  /** The component's stream is up. */
  isLinkUp = false
  #isServerUp = true
  readonly #host: NetworkHost
  readonly #streams = new Map<string, Stream>()
  readonly #arrivals = new Map<string, number>()
  /** Of the component's stream. */
  #link = { isLost: false }

  constructor(host: NetworkHost) {
    this.#host = host
  }

  get isServerUp(): boolean {
    return this.#isServerUp
  }

  /** Full JIDs that the server routes to. */
  get bound(): readonly string[] {
    return [...this.#streams.keys()]
  }

  /** Opens a stream. @returns undefined while the server is down */
  connect(jid: string, owner: StreamOwner): Stream | undefined {
    if (!this.#isServerUp) return undefined
    const stream = { jid, owner, isBound: true, isOpen: true, announced: new Set<string>(), isLost: false }
    this.#streams.set(jid, stream)
    return stream
  }

  /** Whoever is bound to a full JID writes; nobody does when nobody is. */
  sendAs(jid: string, outgoing: XmlElement): void {
    const stream = this.#streams.get(jid)
    if (stream !== undefined) this.send(stream, outgoing)
  }

  /** A stream that is bound to a full JID. */
  find(jid: string): Stream | undefined {
    return this.#streams.get(jid)
  }

  /** A client writes. */
  send(stream: Stream, outgoing: XmlElement): void {
    // Nobody reads what goes into a half-open stream.
    if (!stream.isOpen || !stream.isBound) return
    const stamped = withAttrs(outgoing, { from: stream.jid })
    const to = outgoing.attrs.get('to') ?? ''
    if (outgoing.name === 'presence') {
      if (outgoing.attrs.has('type')) stream.announced.delete(to)
      else stream.announced.add(to)
    }
    if (to === SERVER) {
      if (outgoing.name === 'iq' && isPing(outgoing)) {
        this.#inOrder(`out ${stream.jid}`, () => this.#write(stream, resultTo(stamped)))
      }
      return
    }
    this.#arriveAtCore(stream, stamped)
    if (outgoing.name === 'iq' && this.#host.random.chance(this.forgeries)) this.#forge(stream, outgoing)
    if (this.#host.random.chance(this.duplicates)) {
      this.#host.note('duplicate stanza')
      this.onDoubled(outgoing)
      this.#arriveAtCore(stream, stamped)
    }
  }

  /** The client ends its stream in order. */
  close(stream: Stream): void {
    if (!stream.isOpen) return
    stream.isOpen = false
    this.#unbind(stream)
  }

  /** A stream breaks. */
  cut(stream: Stream, how: Break): void {
    if (!stream.isOpen) return
    const { random } = this.#host
    this.#host.note(`stream ${how}`)
    stream.isLost = random.chance(0.5)
    if (how === 'half-open client') {
      this.#unbind(stream)
      if (random.chance(0.5)) this.#later(random.gap(3_000), () => this.#end(stream))
    } else if (how === 'half-open server') {
      this.#end(stream)
      this.#later(random.gap(3_000), () => this.#unbind(stream))
    } else {
      this.#unbind(stream)
      this.#later(random.gap(50), () => this.#end(stream))
    }
  }

  /** A stream's client is gone without a word. @param told queues that the server tells, whatever it was told */
  vanish(stream: Stream, told: readonly string[]): void {
    stream.isOpen = false
    stream.announced.clear()
    for (const queue of told) stream.announced.add(queue)
    this.#unbind(stream)
  }

  /** The server dies, with every stream, and comes back. */
  crashServer(): void {
    if (!this.#isServerUp) return
    this.#host.note('server crash')
    this.#isServerUp = false
    this.link(false)
    for (const stream of this.#streams.values()) {
      stream.isLost = true
      stream.isBound = false
      this.#later(this.#host.random.gap(50), () => this.#end(stream))
    }
    this.#streams.clear()
    this.#later(this.#host.random.gap(1_500), () => this.restoreServer())
  }

  restoreServer(): void {
    this.#isServerUp = true
    this.link(true)
  }

  /** The component's stream is there or not. */
  link(isUp: boolean): void {
    if (this.isLinkUp === isUp || (isUp && !this.#isServerUp)) return
    this.isLinkUp = isUp
    if (!isUp) this.#loseWritten()
    this.#host.link(isUp)
  }

  /** The component's stream is gone, and nobody is left who could be told. */
  linkLost(): void {
    this.isLinkUp = false
    this.#loseWritten()
  }

  /** What the core wrote and nobody has read is lost, or arrives late. */
  #loseWritten(): void {
    if (this.linkLosses === 0) return
    this.#link.isLost = this.#host.random.chance(this.linkLosses)
    this.#link = { isLost: false }
  }

  /** A client hangs, or the way to it: nothing passes, then everything does. */
  stall(jid: string, ms: number): void {
    for (const way of ['in', 'out']) this.#arrivals.set(`${way} ${jid}`, this.#host.now() + ms)
  }

  /** The core writes a stanza. */
  fromCore(outgoing: XmlElement): void {
    if (!this.isLinkUp) return
    const to = outgoing.attrs.get('to') ?? ''
    const link = this.#link
    const deliver = (): void => {
      const stream = this.#streams.get(to)
      if (link.isLost) this.#host.note('stanza lost with the link')
      else if (stream === undefined) this.#bounce(to, outgoing)
      else this.#write(stream, outgoing)
    }
    this.#inOrder(`out ${to}`, deliver)
    if (this.#host.random.chance(this.duplicates)) this.#inOrder(`out ${to}`, deliver)
    if (this.strangers > 0 && outgoing.name === 'iq') this.#answerForAnother(outgoing)
  }

  /** Somebody else answers what was asked, and knows its id. */
  #answerForAnother(asked: XmlElement): void {
    const type = asked.attrs.get('type')
    if ((type !== 'get' && type !== 'set') || !this.#host.random.chance(this.strangers)) return
    this.#host.note('stranger answered')
    const head = { id: asked.attrs.get('id'), from: 'mallory@localhost/x', to: asked.attrs.get('from') }
    const news = element('progress', NS_QUEUE, { call: head.id, n: '1' }, [element('at', 'urn:x')])
    const said = this.#host.random.pick([
      stanza('iq', { type: 'result', ...head }),
      stanza('iq', { type: 'error', ...head }),
      stanza('message', { type: 'headline', from: head.from, to: head.to }, [news]),
    ])
    this.#inOrder('in mallory@localhost/x', () => this.#toCore(said))
  }

  #write(stream: Stream, incoming: XmlElement): void {
    if (stream.isOpen) stream.owner.receive(incoming)
  }

  #end(stream: Stream): void {
    if (!stream.isOpen) return
    stream.isOpen = false
    stream.owner.ended()
  }

  #unbind(stream: Stream): void {
    if (!stream.isBound) return
    stream.isBound = false
    if (this.#streams.get(stream.jid) === stream) this.#streams.delete(stream.jid)
    for (const queue of stream.announced) {
      const gone = stanza('presence', { type: 'unavailable', to: queue, from: stream.jid })
      this.#inOrder(`in ${stream.jid}`, () => this.#toCore(gone))
    }
  }

  #arriveAtCore(stream: Stream, stamped: XmlElement): void {
    this.#inOrder(`in ${stream.jid}`, () => {
      if (stream.isLost && !stream.isBound) this.#host.note('stanza lost with its stream')
      else this.#toCore(stamped)
    })
  }

  #forge(stream: Stream, asked: XmlElement): void {
    const [child] = spokenIn(asked)
    if (child === undefined || asked.attrs.get('type') !== 'set') return
    this.#host.note('forged answer')
    const items = childElements(child).map((item) =>
      element('item', NS_QUEUE, { id: item.attrs.get('id'), lease: item.attrs.get('lease'), seq: '666' }),
    )
    const answer =
      child.name === 'publish'
        ? element('published', NS_QUEUE, { durability: 'disk' }, items)
        : element('settled', NS_QUEUE)
    const head = { type: 'result', id: asked.attrs.get('id'), from: 'mallory@localhost/x', to: stream.jid }
    this.#inOrder(`out ${stream.jid}`, () => this.#write(stream, stanza('iq', head, [answer])))
  }

  /** A stanza arrives at the component's stream, or at none: then the server itself answers, or it is lost. */
  #toCore(arrived: XmlElement): void {
    if (this.isLinkUp) {
      this.#host.toCore(arrived)
      return
    }
    const type = arrived.attrs.get('type')
    const from = arrived.attrs.get('from') ?? ''
    if (arrived.name !== 'iq' || (type !== 'get' && type !== 'set') || this.#host.random.chance(0.3)) return
    const stream = this.#streams.get(from)
    if (stream === undefined) return
    const answer = errorOf(arrived, this.#host.random.pick(NO_COMPONENT))
    this.#inOrder(`out ${from}`, () => this.#write(stream, answer))
  }

  #bounce(jid: string, undelivered: XmlElement): void {
    const type = undelivered.attrs.get('type')
    if (undelivered.name === 'message' ? type === 'error' : type !== 'get' && type !== 'set') return
    if (undelivered.name === 'message' && this.vanishes > 0 && this.#host.random.chance(this.vanishes)) {
      this.#host.note('message vanished')
      return
    }
    const answer = errorOf(undelivered, this.#host.random.pick(NOBODY))
    this.#inOrder(`in ${jid}`, () => this.#toCore(answer))
  }

  /** Streams keep their order. */
  #inOrder(way: string, act: () => void): void {
    const arrival = Math.max(this.#host.now() + Math.min(this.#host.random.gap(15), 400), this.#arrivals.get(way) ?? 0)
    this.#arrivals.set(way, arrival)
    this.#host.at(arrival, act)
  }

  #later(delayMs: number, act: () => void): void {
    this.#host.at(this.#host.now() + delayMs, act)
  }
}

function errorOf(undelivered: XmlElement, condition: string): XmlElement {
  const type = condition === 'remote-server-timeout' ? 'wait' : 'cancel'
  const error = element('error', 'jabber:client', { type }, [element(condition, NS_STANZAS)])
  const { name, attrs } = undelivered
  const children = name === 'message' ? [...childElements(undelivered), error] : [error]
  return stanza(
    name as 'iq',
    { type: 'error', id: attrs.get('id'), to: attrs.get('from'), from: attrs.get('to') },
    children,
  )
}
