/**
 * Plain and reliable clients on one queue, through a real server: the rules and cases of packages/broker/test/core/mix-rules.ts, but
 * for those in which clients die, which resume.test.ts and test/faults have.
 */
import {
  childElements,
  decodeError,
  findChild,
  isPing,
  NS_QUEUE,
  resultTo,
  textOf,
  writeElement,
  type XmlElement,
} from '@xmq/protocol'
import { expect, test } from 'vitest'
import {
  type Cast,
  type ConsumerKind,
  expectedOf,
  type Kept,
  MIXES,
  play,
  type Publisher,
} from '../../packages/broker/test/core/mix-rules.ts'
import { askedBy, gottenBy, REQUEST_MIXES } from '../../packages/broker/test/core/mix-requests.ts'
import { expectError, expectResult, xml } from './expectations.ts'
import type { QueueClient } from './queue-client.ts'
import { fresh, onEachServer, QUEUES, type Stage } from './stage.ts'

/** Clients of a real server, each with an account of its own. */
class WireCast implements Cast {
  readonly #stage: Stage
  readonly #queue: string
  readonly #topic = fresh('topic')
  readonly #shop: QueueClient
  readonly #clients = new Map<ConsumerKind, QueueClient>()

  constructor(stage: Stage, queue: string, shop: QueueClient) {
    this.#stage = stage
    this.#queue = queue
    this.#shop = shop
  }

  async join(consumer: ConsumerKind): Promise<void> {
    let client = this.#clients.get(consumer)
    if (client === undefined) {
      client = await this.#stage.client(fresh(consumer))
      client.send(`<presence to='${this.#queue}'/>`)
      this.#clients.set(consumer, client)
    }
    const name = consumer === 'named' ? ` name='n'` : ''
    const consume = consumer === 'plain' ? '' : `<consume xmlns='xmq:queue:1' credit='100'${name}/>`
    expectResult(
      await client.ask(
        this.#queue,
        'set',
        `<xmq xmlns='xmq:command' command='sub' topic='${this.#topic}' ttl='60' load='1'>${consume}</xmq>`,
      ),
    )
    // The ping that a `sub` brings is answered before anything is published.
    await client.fence(this.#queue)
  }

  async leave(consumer: ConsumerKind): Promise<void> {
    expectResult(await this.#of(consumer).del(this.#queue, this.#topic))
  }

  die(): Promise<void> {
    throw new Error('Nobody dies here.')
  }

  async publish(publisher: Publisher, number: number): Promise<string | undefined> {
    if (publisher === 'plain') {
      this.#shop.send(
        `<message type='chat' id='m' to='${this.#queue}'><body>${number}</body><xmq xmlns='xmq:topic' topic='${this.#topic}'/></message>`,
      )
      await this.#shop.fence(this.#queue)
      await this.#publishItem(fresh('last'), fresh('elsewhere'), '')
      const refusals = await this.#shop.takeMessages()
      if (refusals.length === 0) return undefined
      expect(expectError(refusals[0] as XmlElement, 'not-acceptable').message).toBe('No recipients found')
      return 'refused'
    }
    const answer = await this.#publishItem(`i${number}`, this.#topic, `<body xmlns='jabber:client'>${number}</body>`)
    const durability = /durability='(\w+)'/.exec(answer)?.[1]
    const subscriptions = /subscriptions='(\d+)'/.exec(answer)?.[1]
    if (durability === undefined || !answer.includes('seq=')) return answer
    return subscriptions === undefined ? durability : `${durability}, ${subscriptions}`
  }

  /** Confirmed only after whatever was published before it has been stored. */
  async #publishItem(id: string, topic: string, payload: string): Promise<string> {
    const item = `<item id='${this.#topic}-${id}' topic='${topic}'>${payload}</item>`
    const answer = await this.#shop.ask(this.#queue, 'set', `<publish xmlns='xmq:queue:1'>${item}</publish>`)
    return writeElement(answer)
  }

  async got(consumer: ConsumerKind, count: number): Promise<string[]> {
    const client = this.#of(consumer)
    const got: string[] = []
    while (got.length < count) await this.#take(client, got)
    await this.#shop.fence(this.#queue)
    await client.fence(this.#queue)
    while (client.inbox.some((stanza) => !isPing(stanza))) await this.#take(client, got)
    return got
  }

  async #take(client: QueueClient, got: string[]): Promise<void> {
    const stanza = await client.nextDelivery()
    if (stanza.name === 'message') {
      got.push(this.#describeMessage(stanza))
      return
    }
    const items = childElements(findChild(stanza, 'deliver', NS_QUEUE) as XmlElement)
    got.push(...items.map((item) => this.#describeItem(item)))
    const acks = items.map((item) => `<ack lease='${item.attrs.get('lease')}'/>`).join('')
    client.send(resultTo(stanza, [xml(`<settle xmlns='xmq:queue:1'>${acks}</settle>`)]))
  }

  #describeMessage(message: XmlElement): string {
    const body = findChild(message, 'body', 'jabber:client')
    const number = body === undefined ? '?' : textOf(body)
    // ejabberd leaves out what is the default.
    const type = message.attrs.get('type') ?? 'normal'
    const isWhole =
      message.attrs.get('id') === (type === 'chat' ? 'm' : `${this.#topic}-i${number}`) &&
      message.attrs.get('from') === this.#queue &&
      writeElement(message).includes(this.#shop.jid)
    return isWhole ? `${number} message ${type}` : writeElement(message)
  }

  #describeItem(item: XmlElement): string {
    const body = findChild(item, 'body', 'jabber:client')
    const number = body === undefined ? '?' : textOf(body)
    const envelope = findChild(item, 'envelope', NS_QUEUE)
    const isWhole =
      item.attrs.get('from') === this.#shop.jid &&
      item.attrs.get('id') === (envelope === undefined ? `${this.#topic}-i${number}` : undefined)
    return isWhole ? `${number} item${envelope === undefined ? '' : ' in an envelope'}` : writeElement(item)
  }

  #of(consumer: ConsumerKind): QueueClient {
    return this.#clients.get(consumer) as QueueClient
  }
}

for (const kept of ['memory', 'disk'] as const satisfies readonly Kept[]) {
  onEachServer(
    `plain and reliable clients mixed, store: ${kept}`,
    (stage) => {
      test.each(MIXES.filter((mix) => mix.kept === kept && mix.moment !== 'dies'))('$title', async (mix) => {
        const cast = new WireCast(stage, QUEUES[mix.queue], await stage.client(fresh('shop')))
        expect(await play(mix, cast)).toEqual(expectedOf(mix))
      })
    },
    { isDurable: kept === 'disk' },
  )
}

onEachServer('requests between plain and reliable clients', (stage) => {
  /** Here nobody waits for a time to be over, and what servers bounce is in requests.test.ts. */
  const table = REQUEST_MIXES.filter(
    ({ kept, workers, end }) =>
      kept === 'memory' && workers.length <= 1 && end !== 'takes too long' && end !== 'bounces',
  )

  test.each(table)('$title', async ({ queue: type, asker, workers, end, hears, isTold }) => {
    const queue = QUEUES[type]
    const topic = fresh('topic')
    const [kind] = workers
    const shop = await stage.client(fresh('shop'))
    const worker = kind === undefined ? undefined : await workerOf(queue, topic, kind)
    const id = fresh('call')
    shop.send(`<iq type='get' to='${queue}' id='${id}'>${askedBy(asker, topic)}</iq>`)
    if (asker === 'plain, flat' && stage.kind === 'prosody') {
      expect(await heard(shop, id)).toBe('bad-request')
      return
    }
    if (worker === undefined || kind === undefined) {
      expect(await heard(shop, id)).toBe('no-recipients')
      return
    }
    const asked = await worker.nextRequest()
    expect(contentOf(asked)).toEqual(contentOf(xml(`<iq>${gottenBy(kind, asker, topic, shop.jid)}</iq>`)))
    if (end === 'is answered') worker.send(resultTo(asked, [xml("<ok xmlns='urn:x'/>")]))
    else if (end === 'is answered with an error') {
      const own = `<error type='cancel'><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`
      worker.send(`<iq type='error' id='${asked.attrs.get('id')}' to='${queue}'>${own}</iq>`)
    } else if (end === 'dies with its worker') await worker.cut()
    else expectResult(await shop.ask(queue, 'set', `<cancel xmlns='xmq:queue:1' call='${id}'/>`))
    expect(await heard(shop, id)).toBe(hears)
    if (end === 'dies with its worker') return
    await worker.fence(queue)
    const told = worker.inbox.filter((stanza) => !isPing(stanza)).map((stanza) => findChild(stanza, 'cancel', NS_QUEUE))
    expect(told.map((cancel) => cancel?.attrs.get('call'))).toEqual(
      isTold && kind === 'reliable' ? [asked.attrs.get('id')] : [],
    )
  })

  async function workerOf(queue: string, topic: string, kind: Publisher): Promise<QueueClient> {
    if (kind === 'plain') return await stage.worker(queue, topic)
    const worker = await stage.client(fresh('worker'))
    worker.send(`<presence to='${queue}'/>`)
    const sub = `<xmq xmlns='xmq:command' command='sub' topic='${topic}' ttl='60' load='1'><consume xmlns='xmq:queue:1' credit='4'/></xmq>`
    expectResult(await worker.ask(queue, 'set', sub))
    return worker
  }

  /** What a request was answered with. */
  async function heard(client: QueueClient, id: string): Promise<string> {
    const answer = await client.nextAnswer(id)
    if (answer.attrs.get('type') === 'result') return 'result'
    const { fromBroker, code, condition } = decodeError(answer)
    return fromBroker ? code : condition
  }

  /** As text, attributes in one order: servers have their own. */
  function contentOf(iq: XmlElement): string[] {
    const sorted = (node: XmlElement): XmlElement => ({
      ...node,
      attrs: new Map([...node.attrs].toSorted(([left], [right]) => (left < right ? -1 : 1))),
      children: node.children.map((child) => (typeof child === 'string' ? child : sorted(child))),
    })
    return childElements(iq)
      .map((child) => writeElement(sorted(child)))
      .toSorted((left, right) => (left < right ? -1 : 1))
  }
})
