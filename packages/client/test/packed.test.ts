/** docs/protocol-reliable.md "Packed items", as the session speaks and hears them; on a virtual clock. */
import {
  createContent,
  decodePublish,
  encodeDeliver,
  encodeError,
  encodeJson,
  encodePublished,
  FEATURE_PACKED,
  findChild,
  type ItemCodec,
  NS_COMMAND,
  NS_QUEUE,
  PACKED_ITEMS,
  stanza,
  writeElement,
  type XmlElement,
  XML_ITEMS,
  XmqError,
} from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import type { Effect } from '../src/session/index.ts'
import { holding, OWN, QUEUE, SessionBench, verdicts } from './session-bench.ts'

function bench(...more: string[]): SessionBench {
  const one = new SessionBench({ pendingMax: 100, pendingBytesMax: 100_000 })
  one.features = [...one.features, ...more]
  return one
}

const put = (one: SessionBench, id: string) =>
  one.publishMessage({ id, topic: 't', payload: [encodeJson('{"a":1}')], isText: false })

const publishOf = (batch: XmlElement | undefined): XmlElement => {
  const publish = batch && findChild(batch, 'publish', NS_QUEUE)
  if (publish === undefined) throw new Error('No batch has left.')
  return publish
}
const batches = (effects: readonly Effect[]) => holding(effects, 'publish')
const encodings = (effects: readonly Effect[]) => batches(effects).map((one) => publishOf(one).attrs.get('encoding'))
const ids = (batch: XmlElement | undefined) =>
  decodePublish(publishOf(batch)).map((one) => (one.ok ? one.item.id : '?'))
const refused = (one: SessionBench, batch: XmlElement | undefined, error: XmqError) =>
  one.input({
    type: 'stanza',
    stanza: stanza('iq', { type: 'error', id: batch?.attrs.get('id'), from: QUEUE, to: OWN }, [encodeError(error)]),
  })
const unknown = new XmqError('bad-request', "Attribute 'encoding' of <publish> is not known here.", {
  fromBroker: true,
})

describe('publishing', () => {
  it('packs what is for a queue that says that it takes it, and reads its confirm', () => {
    const one = bench(FEATURE_PACKED)
    one.reliable()
    const refs = [put(one, 'a').ref, put(one, 'b').ref]
    const left = one.turn()
    expect(encodings(left)).toEqual(['packed'])
    const [batch] = batches(left) as [XmlElement]
    expect(ids(batch)).toEqual(['a', 'b'])
    const items = [7, 8].map((seq) => ({ status: 'stored' as const, id: undefined, seq, duplicate: seq === 8 }))
    const answered = one.answer(batch, [encodePublished({ durability: 'disk', items }, true)])
    expect(verdicts(answered)).toEqual(refs.map((ref) => `settled ${ref}`))
    expect(answered).toMatchObject([
      { confirm: { seq: 7, duplicate: false, durability: 'disk' } },
      { confirm: { seq: 8, duplicate: true } },
    ])
  })

  it('writes elements for a queue that does not say so', () => {
    const one = bench()
    one.reliable()
    put(one, 'a')
    expect(encodings(one.turn())).toEqual([undefined])
  })

  it('sends what was written before it knew the queue as elements, in a batch of its own and first', () => {
    const one = bench(FEATURE_PACKED)
    put(one, 'early')
    one.reliable()
    put(one, 'late')
    const left = one.turn()
    const [first] = batches(left) as [XmlElement]
    expect(ids(first)).toEqual(['early'])
    expect(encodings(left)[0]).toBe(undefined)
    const items = [{ status: 'stored' as const, id: 'early', seq: 1, duplicate: false }]
    const next = [
      ...left.slice(1),
      ...one.answer(first, [encodePublished({ durability: 'disk', items })]),
      ...one.turn(),
    ]
    expect(batches(next).map(ids)).toContainEqual(['late'])
  })

  it('goes on with elements, at once and in order, where another broker does not know the encoding', () => {
    const one = bench(FEATURE_PACKED)
    one.reliable()
    for (const id of ['a', 'b']) put(one, id)
    const [batch] = batches(one.turn())
    put(one, 'c')
    const again = [...refused(one, batch, unknown), ...one.turn()]
    expect(encodings(again)).toEqual([undefined])
    expect(ids(batches(again)[0])).toEqual(['a', 'b', 'c'])
    expect(one.session.codec).toBe(XML_ITEMS)
    const [xml] = batches(again)
    expect(writeElement(xml as XmlElement)).toContain('<json xmlns=\'urn:xmpp:json:0\'>{"a":1}</json>')
    // Refused as elements, too: then it is the messages.
    expect(verdicts(refused(one, xml, unknown)).map((verdict) => verdict.split(' ')[0])).toEqual([
      'failed',
      'failed',
      'failed',
    ])
  })
})

describe('two batches on their way', () => {
  it('are both sent again as elements when both are refused', () => {
    const one = bench(FEATURE_PACKED)
    one.reliable()
    put(one, 'a')
    const [first] = batches(one.turn())
    for (const id of ['b', 'c', 'd', 'e']) put(one, id)
    const [second] = batches(one.turn())
    const again = [...refused(one, first, unknown), ...refused(one, second, unknown), ...one.turn()]
    expect(verdicts(again)).toEqual([])
    expect(batches(again).flatMap(ids)).toEqual(['a', 'b', 'c', 'd', 'e'])
    expect(encodings(again).every((encoding) => encoding === undefined)).toBe(true)
  })
})

describe('consuming', () => {
  const deliver = (codec: ItemCodec, seq: number) =>
    encodeDeliver(30_000, [
      codec.writeDeliveredItem({
        lease: `${seq}.a`,
        seq,
        id: `m${seq}`,
        topic: 't',
        from: 'shop@localhost/x',
        at: 1000,
        attempt: 1,
        failures: 0,
        content: createContent({ payload: [encodeJson('1')] }),
      }),
    ])

  it('asks for packed items with each sub, and acks in one text what came so', () => {
    const one = bench()
    one.input({ type: 'subscribe', topic: 't' })
    const up = one.reliable()
    const sub = up.find((effect) => effect.type === 'send' && findChild(effect.stanza, 'xmq', NS_COMMAND) !== undefined)
    if (sub?.type !== 'send') throw new Error('No sub has left.')
    expect(writeElement(sub.stanza)).toContain("encoding='packed'")
    one.answer(sub.stanza)
    const answers: string[] = []
    for (const [seq, codec] of [PACKED_ITEMS, XML_ITEMS].entries()) {
      const head = { type: 'set', id: `d${seq}`, from: QUEUE, to: OWN }
      const got = one.input({ type: 'stanza', stanza: stanza('iq', head, [deliver(codec, seq + 1)]) })
      expect(got).toMatchObject([{ type: 'deliver', delivery: { lease: { seq: seq + 1 } } }])
      one.input({ type: 'settle', key: `${seq + 1}@1000`, outcome: { kind: 'ack' } })
      for (const effect of one.turn()) if (effect.type === 'send') answers.push(writeElement(effect.stanza))
    }
    expect(answers).toEqual([
      expect.stringContaining("<settle xmlns='xmq:queue:1'><acks>1.a</acks></settle>"),
      expect.stringContaining("<settle xmlns='xmq:queue:1'><ack lease='2.a'/></settle>"),
    ])
  })
})
