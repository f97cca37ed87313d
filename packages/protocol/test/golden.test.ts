/**
 * Stanzas as files: golden/NAME.xml is the wire, golden/NAME.json what it means. Both ways, unless `oneWay` says that it is
 * only ever received. The XML is canonical: what the writer writes. The JSON's `element` came from another parser.
 */
import { readdirSync, readFileSync } from 'node:fs'
import {
  childElements,
  decodeCommand,
  decodeError,
  decodeMessagePayload,
  decodeRequest,
  decodeTopic,
  encodeCommand,
  encodeError,
  encodeRequest,
  encodeTopic,
  findChild,
  findTopic,
  NS_COMMAND,
  type Payload,
  parseElement,
  payloadOf,
  withChildren,
  writeElement,
  type XmlElement,
  type XmlNode,
  type XmqCommand,
  XmqError,
  type XmqErrorCode,
} from '@xmq/protocol'
import { describe, expect, test } from 'vitest'

interface Tree {
  readonly name: string
  readonly ns: string
  readonly attrs?: Record<string, string>
  readonly children?: readonly (Tree | string)[]
}

interface Golden {
  readonly element: Tree
  readonly oneWay?: boolean
  readonly command?: XmqCommand
  readonly message?: { readonly topic: string; readonly payload: unknown }
  readonly request?: { readonly topic: string; readonly form: 'nested' | 'flat'; readonly payload: unknown }
  readonly error?: {
    readonly code: XmqErrorCode
    readonly condition: string
    readonly type: string
    readonly message: string
    readonly fromBroker: boolean
    readonly retryAfterSeconds?: number
  }
}

const folder = new URL('golden/', import.meta.url)
const names = readdirSync(folder)
  .filter((file) => file.endsWith('.xml'))
  .map((file) => file.slice(0, -4))

function fromTree(tree: Tree | string): XmlNode {
  if (typeof tree === 'string') return tree
  const { name, ns, attrs = {}, children = [] } = tree
  return { name, ns, attrs: new Map(Object.entries(attrs)), children: children.map(fromTree) }
}

function toTree(node: XmlNode): Tree | string {
  if (typeof node === 'string') return node
  const { name, ns, attrs, children } = node
  return {
    name,
    ns,
    ...(attrs.size > 0 ? { attrs: Object.fromEntries(attrs) } : {}),
    ...(children.length > 0 ? { children: children.map(toTree) } : {}),
  }
}

/** JSON has no place for elements: their number stands for them, `element` has them whole. */
function summary(payload: Payload): unknown {
  return payload.kind === 'xml' ? { kind: 'xml', elements: payload.elements.length } : payload
}

const xmqOf = (stanza: XmlElement) => findChild(stanza, 'xmq', NS_COMMAND) as XmlElement

test('there are golden stanzas', () => {
  expect(names.length).toBeGreaterThan(20)
})

describe.each(names)('%s', (name) => {
  const xml = readFileSync(new URL(`${name}.xml`, folder), 'utf8').replace(/\n$/, '')
  const golden = JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8')) as Golden
  const stanza = parseElement(xml)
  const back = (children: readonly XmlNode[]) => writeElement(withChildren(stanza, children))

  test('XML to element and back', () => {
    expect(toTree(stanza)).toEqual(golden.element)
    // Where it is only received, its attributes may stand in any order.
    const written = writeElement(fromTree(golden.element) as XmlElement)
    if (golden.oneWay === true) expect(toTree(parseElement(written))).toEqual(golden.element)
    else expect(written).toBe(xml)
  })

  if (golden.command !== undefined)
    test('command', () => {
      expect(decodeCommand(xmqOf(stanza))).toEqual(golden.command)
      if (golden.oneWay !== true) expect(back([encodeCommand(golden.command as XmqCommand)])).toBe(xml)
    })

  if (golden.message !== undefined)
    test('message', () => {
      const xmq = findTopic(stanza) as XmlElement
      expect({ topic: decodeTopic(xmq), payload: summary(decodeMessagePayload(stanza)) }).toEqual(golden.message)
      const again = stanza.children.map((child) =>
        child === xmq ? encodeTopic(decodeTopic(xmq), xmq.children) : child,
      )
      expect(back(again)).toBe(xml)
    })

  if (golden.request !== undefined)
    test('request', () => {
      const request = decodeRequest(stanza)
      if (request === undefined) throw new Error('no request')
      const { topic, form, payload } = request
      expect({ topic, form, payload: summary(payloadOf(payload)) }).toEqual(golden.request)
      if (golden.oneWay !== true) expect(back(encodeRequest(topic, payload, form))).toBe(xml)
    })

  if (golden.error !== undefined)
    test('error', () => {
      const error = decodeError(stanza)
      const { code, condition, type, message, fromBroker, retryAfterSeconds } = error
      expect(error).toBeInstanceOf(XmqError)
      expect(JSON.parse(JSON.stringify({ code, condition, type, message, fromBroker, retryAfterSeconds }))).toEqual(
        golden.error,
      )
      if (golden.oneWay !== true) expect(back([encodeError(error)])).toBe(xml)
    })

  test('nothing is lost when it stands elsewhere', () => {
    for (const child of childElements(stanza))
      expect(parseElement(writeElement(child, 'urn:elsewhere'), 'urn:elsewhere')).toEqual(child)
  })
})
