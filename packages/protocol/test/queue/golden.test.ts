/**
 * `xmq:queue:1` as files: golden/NAME.xml is the wire, golden/NAME.json which codec reads it and what it means. Both ways,
 * unless `oneWay` says that it is only ever received. The XML is what the writer writes, to the character.
 */
import { readdirSync, readFileSync } from 'node:fs'
import * as xmq from '@xmq/protocol'
import { describe, expect, test } from 'vitest'
import { fromPlainContent, fromPlainError, type Plain, toPlain } from './plain-values.ts'

type Fields = Readonly<Record<string, unknown>>
interface Codec {
  /** The stanza's meaning. */
  decode(stanza: xmq.XmlElement): unknown
  /** The stanza's children from its meaning. */
  encode(value: never): readonly xmq.XmlNode[]
}

const { NS_COMMAND, NS_QUEUE, NS_TOPIC, PACKED_ITEMS, XML_ITEMS } = xmq

function only(stanza: xmq.XmlElement): xmq.XmlElement {
  return xmq.childElements(stanza)[0] as xmq.XmlElement
}

const items = (all: readonly { item: Fields }[]): Fields[] =>
  all.map(({ item }) => ({ ...item, content: fromPlainContent(item['content']) }))
const settlements = (all: readonly { settlement: xmq.Settlement }[]): xmq.WrittenItem[] =>
  all.map(({ settlement }) => xmq.writeSettlement(settlement))
const withErrors = (all: readonly Fields[]): Fields[] =>
  all.map((each) => ('error' in each ? { ...each, error: fromPlainError(each['error']) } : each))
const fixed = (decode: (root: xmq.XmlElement) => unknown, encode: (value: never) => xmq.XmlElement): Codec => ({
  decode: (stanza) => decode(only(stanza)),
  encode: (value) => [encode(value)],
})

const CODECS: Readonly<Record<string, Codec>> = {
  publish: {
    decode: (stanza) => xmq.decodePublish(only(stanza)),
    encode: (value) => [xmq.encodePublish(items(value).map((item) => XML_ITEMS.writePublishItem(item as never)))],
  },
  published: fixed(xmq.decodePublished, (value: { durability: 'disk'; items: Fields[] }) =>
    xmq.encodePublished({ durability: value.durability, items: withErrors(value.items) as never }),
  ),
  deliver: fixed(xmq.decodeDeliver, (value: { leaseMs: number; items: { item: Fields }[] }) =>
    xmq.encodeDeliver(
      value.leaseMs,
      items(value.items).map((item) => XML_ITEMS.writeDeliveredItem(item as never)),
    ),
  ),
  publishPacked: {
    decode: (stanza) => xmq.decodePublish(only(stanza)),
    encode: (value) => [xmq.encodePublish(items(value).map((item) => PACKED_ITEMS.writePublishItem(item as never)))],
  },
  publishedPacked: fixed(xmq.decodePublished, (value: xmq.Published) => xmq.encodePublished(value, true)),
  deliverPacked: fixed(xmq.decodeDeliver, (value: { leaseMs: number; items: { item: Fields }[] }) =>
    xmq.encodeDeliver(
      value.leaseMs,
      items(value.items).map((item) => PACKED_ITEMS.writeDeliveredItem(item as never)),
    ),
  ),
  receivedPacked: {
    decode: xmq.decodeReceived,
    encode: (value: { settlement: { lease: string } }[]) =>
      xmq.encodeReceived(
        [],
        value.map(({ settlement }) => settlement.lease),
      ),
  },
  received: { decode: xmq.decodeReceived, encode: (value) => xmq.encodeReceived(settlements(value)) },
  settle: fixed(xmq.decodeSettle, (value: []) => xmq.encodeSettle(settlements(value))),
  settled: fixed(xmq.decodeSettled, (value: Fields[]) => xmq.encodeSettled(withErrors(value) as never)),
  consume: {
    decode: (stanza) => xmq.decodeConsume(xmq.findChild(stanza, 'xmq', NS_COMMAND) as xmq.XmlElement),
    encode: (value) => [
      xmq.encodeCommand({ command: 'sub', topic: 'a.*', ttlSeconds: 60, load: 12 }, [xmq.encodeConsume(value)]),
    ],
  },
  renew: fixed(xmq.decodeRenew, xmq.encodeRenew),
  renewed: fixed(xmq.decodeRenewed, (value: { subscriptions: number }) => xmq.encodeRenewed(value.subscriptions)),
  resubscribe: { decode: xmq.isResubscribe, encode: () => [xmq.encodeResubscribe()] },
  alive: fixed(xmq.decodeAlive, (value: { epoch?: string }) => xmq.encodeAlive(value.epoch)),
  forget: fixed(xmq.decodeForget, (value: { name: string }) => xmq.encodeForget(value.name)),
  call: {
    decode: (stanza) => xmq.decodeCall(xmq.findChild(stanza, 'xmq', NS_TOPIC) as xmq.XmlElement),
    encode: (value: { headers: Record<string, string> }) => {
      const call = xmq.encodeCall({ ...value, headers: new Map(Object.entries(value.headers)) })
      return [xmq.encodeTopic('t', [xmq.encodeJson('1'), call])]
    },
  },
  progress: fixed(xmq.decodeProgress, (value: { call: string; n: number; payload: string[] }) =>
    xmq.encodeProgress({ ...value, payload: value.payload.map((xml) => xmq.parseElement(xml, '')) }),
  ),
  cancel: fixed(xmq.decodeCancel, (value: { call: string }) => xmq.encodeCancel(value.call)),
  browse: fixed(xmq.decodeBrowse, xmq.encodeBrowse),
  page: {
    decode: (stanza) => {
      const page = xmq.decodeBrowsePage(only(stanza))
      return only(stanza).name === 'dead-letters' ? { state: 'dead', ...page } : page
    },
    encode: (value: { state?: 'dead'; next?: number; items: Fields[] }) => {
      const contents = value.items.map((item) => ('content' in item ? fromPlainContent(item['content']) : undefined))
      const written = value.items.map((item, at) => xmq.writeBrowsedItem({ ...item, content: contents[at] } as never))
      return [xmq.encodeBrowsePage(value.state, written, value.next)]
    },
  },
  order: fixed(xmq.decodeDeadLetterOrder, xmq.encodeDeadLetterOrder),
  outcome: fixed(xmq.decodeDeadLetterOutcome, (value: { done: number; failed: Fields[] }) =>
    xmq.encodeDeadLetterOutcome({ ...value, failed: withErrors(value.failed) as never }),
  ),
  statsQuery: fixed(xmq.decodeStatsQuery, xmq.encodeStatsQuery),
  stats: fixed(xmq.decodeStats, xmq.encodeStats),
}

const folder = new URL('golden/', import.meta.url)
const names = readdirSync(folder)
  .filter((file) => file.endsWith('.xml'))
  .map((file) => file.slice(0, -4))

test('every codec has a golden stanza', () => {
  const used = names.map((name) => JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8')).codec as string)
  expect([...new Set(used)].sort()).toEqual(Object.keys(CODECS).sort())
})

describe.each(names)('%s', (name) => {
  const xml = readFileSync(new URL(`${name}.xml`, folder), 'utf8').replace(/\n$/, '')
  const golden = JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8')) as {
    readonly codec: string
    readonly value: Plain
    readonly oneWay?: boolean
  }
  const codec = CODECS[golden.codec] as Codec
  const stanza = xmq.parseElement(xml)

  test('is read', () => {
    expect(toPlain(codec.decode(stanza))).toEqual(golden.value)
  })

  test.skipIf(golden.oneWay === true)('is written', () => {
    const children = codec.encode(golden.value as never)
    const written = xmq.withChildren(stanza, children)
    expect(xmq.writeElement(written)).toBe(xml)
    // What is text inside looks like elements from outside, and is counted as what is sent.
    expect(toPlain(codec.decode(written))).toEqual(golden.value)
    expect(xmq.wireLength(written)).toBeGreaterThanOrEqual(xmq.wireLength(stanza))
    expect(children.every((child) => typeof child !== 'string' && child.ns !== '')).toBe(true)
  })

  test('is not taken for something else', () => {
    const other = xmq.element('other', NS_QUEUE, undefined, only(stanza)?.children)
    if (['received', 'receivedPacked', 'resubscribe', 'consume', 'call'].includes(golden.codec)) return
    expect(() => codec.decode(xmq.withChildren(stanza, [other]))).toThrow(
      expect.objectContaining({ code: 'bad-request' }),
    )
  })
})
