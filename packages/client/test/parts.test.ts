import { element, parseElement, writeElement, XML_ITEMS, XmqError, type Payload } from '@xmq/protocol'
import { array, assert, constantFrom, nat, property, tuple } from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { z } from 'zod'
import { defineTopic, parseDuration, type Duration } from '../src/index.ts'
import { Emitter } from '../src/events.ts'
import { failureOf, saslFailure } from '../src/failure.ts'
import { decodePayload, encodeMessage, encodeRequestStanza, validate } from '../src/payload.ts'
import { loadOf } from '../src/session/index.ts'
import { Timers } from '../src/session/timers.ts'
import { createMessageId } from '../src/message-id.ts'
import { randomId } from '../src/random-id.ts'
import { isLoopback } from '../src/transport.ts'

describe('durations', () => {
  it.each<[Duration, number]>([
    [0, 0],
    [1500, 1500],
    ['500ms', 500],
    ['30s', 30_000],
    ['1.5m', 90_000],
    ['1h', 3_600_000],
    ['7d', 604_800_000],
  ])('%s is %d ms', (duration, ms) => expect(parseDuration(duration, 'x')).toBe(ms))

  it.each(['', '5', '5 parsecs', '-1s', Number.NaN, -1, Number.POSITIVE_INFINITY])('%s is refused', (duration) => {
    expect(() => parseDuration(duration as Duration, 'ttl')).toThrow(/^ttl is/)
  })
})

describe('load', () => {
  it.each([
    [{ running: 0, waiting: 0, capacity: 16, lagMs: 0 }, 0],
    [{ running: 8, waiting: 0, capacity: 16, lagMs: 0 }, 50],
    [{ running: 8, waiting: 8, capacity: 16, lagMs: 0 }, 100],
    [{ running: 8, waiting: 800, capacity: 16, lagMs: 0 }, 100],
    [{ running: 1, waiting: 0, capacity: 16, lagMs: 199 }, 6],
    [{ running: 1, waiting: 0, capacity: 16, lagMs: 1000 }, 50],
    [{ running: 0, waiting: 0, capacity: 16, lagMs: 5000 }, 100],
  ])('of %o is %d', (work, load) => expect(loadOf(work)).toBe(load))
})

describe('timers', () => {
  it('come in the order of their instants, each key once, as a sorted list would give them', () => {
    const command = tuple(constantFrom('set', 'delete', 'take'), nat(20), nat(100))
    assert(
      property(array(command, { maxLength: 300 }), (commands) => {
        const timers = new Timers<number>()
        const model = new Map<number, number>()
        for (const [what, key, at] of commands) {
          if (what === 'set') {
            timers.set(key, at)
            model.set(key, at)
          } else if (what === 'delete') {
            timers.delete(key)
            model.delete(key)
          } else {
            const taken = timers.take(at)
            const earliest = Math.min(...model.values())
            if (earliest > at) expect(taken).toBeUndefined()
            else expect(model.get(taken ?? -1)).toBe(earliest)
            model.delete(taken ?? -1)
          }
          expect(timers.next).toBe(model.size === 0 ? undefined : Math.min(...model.values()))
        }
      }),
    )
  })
})

describe('payloads', () => {
  const json = defineTopic('t')
  const text = defineTopic('t', { encoding: 'text' })
  const xml = defineTopic('t', { encoding: 'xml' })
  const head = { to: 'q', id: 'm' }
  const plain = { mode: 'plain', codec: XML_ITEMS } as const

  it('stand in a message where mod_xmq and chat clients take them', () => {
    expect(writeElement(encodeMessage(json, { a: 1 }, head, plain).stanza())).toBe(
      `<message type='normal' id='m' to='q'><xmq xmlns='xmq:topic' topic='t'><json xmlns='urn:xmpp:json:0'>{"a":1}</json></xmq></message>`,
    )
    expect(writeElement(encodeMessage(text, 'a<b', head, plain).stanza())).toBe(
      `<message type='chat' id='m' to='q'><body>a&lt;b</body><xmq xmlns='xmq:topic' topic='t'/></message>`,
    )
    expect(writeElement(encodeMessage(xml, [element('a', 'x'), element('b', 'y')], head, plain).stanza())).toBe(
      `<message type='normal' id='m' to='q'><xmq xmlns='xmq:topic' topic='t'><a xmlns='x'/><b xmlns='y'/></xmq></message>`,
    )
  })

  it('stand in the nested form in a request', () => {
    expect(writeElement(encodeRequestStanza(text, 'a', { ...head, call: undefined }).stanza)).toBe(
      `<iq type='get' id='m' to='q'><xmq xmlns='xmq:topic' topic='t'><body xmlns='jabber:client'>a</body></xmq></iq>`,
    )
    expect(writeElement(encodeRequestStanza(json, undefined, { ...head, call: undefined }).stanza)).toBe(
      `<iq type='get' id='m' to='q'><xmq xmlns='xmq:topic' topic='t'/></iq>`,
    )
  })

  it('without a JSON form are refused, and undefined is none', () => {
    const circle: Record<string, unknown> = {}
    circle['self'] = circle
    for (const payload of [() => 1, Symbol('s'), 1n, circle]) {
      expect(() => encodeMessage(json, payload, head, plain)).toThrow(/^The payload of 't' has no JSON form: /)
    }
    expect(writeElement(encodeMessage(json, undefined, head, plain).stanza())).toContain("topic='t'/>")
  })

  it('are decoded leniently where nothing is lost', () => {
    const markup: Payload = { kind: 'xml', elements: [parseElement('<a xmlns="x"/>')] }
    expect(decodePayload(json, { kind: 'text', text: '{"a":1}' }, 'payload')).toEqual({ a: 1 })
    expect(decodePayload(json, { kind: 'none' }, 'payload')).toBeUndefined()
    expect(decodePayload(text, { kind: 'json', text: '[1]' }, 'payload')).toBe('[1]')
    expect(decodePayload(text, { kind: 'none' }, 'payload')).toBe('')
    expect(decodePayload(xml, markup, 'payload')).toEqual(markup.kind === 'xml' ? markup.elements : [])
    for (const [topic, payload] of [
      [json, { kind: 'text', text: 'no json' }],
      [json, markup],
      [text, markup],
    ] as const) {
      expect(() => decodePayload(topic, payload, 'payload')).toThrow(XmqError)
    }
  })

  it('that a schema refuses name each problem and its place', async () => {
    const schema = z.object({ list: z.array(z.object({ url: z.string() })) })
    expect(() => validate(schema, { list: [{ url: 'a' }, { url: 1 }] }, 'The payload')).toThrow(/list\.1\.url: /)
    const late = z.string().refine(async (value) => value === 'good', 'is bad')
    await expect(Promise.resolve(validate(late, 'good', 'x'))).resolves.toEqual({ value: 'good' })
    await expect(Promise.resolve(validate(late, 'evil', 'x'))).rejects.toThrow(/is bad/)
  })
})

describe('failures', () => {
  const target = { service: 'xmpp://h:1', domain: 'd', account: 'a@d' }
  const coded = (code: string): Error => Object.assign(new Error('raw'), { code })
  const named = (name: string, condition: string): Error => Object.assign(new Error(condition), { name, condition })

  it.each([
    [coded('ECONNREFUSED'), 'connection-lost', false, /Nothing listens at xmpp:\/\/h:1/],
    [coded('ENOTFOUND'), 'connection-lost', false, /cannot be resolved/],
    [Object.assign(new AggregateError([coded('ECONNREFUSED')]), {}), 'connection-lost', false, /Nothing listens/],
    [coded('CERT_HAS_EXPIRED'), 'invalid-config', true, /expired/],
    [saslFailure('not-authorized', '', target), 'not-authorized', true, /password of a@d/],
    [saslFailure('account-disabled', 'Gone away.', target), 'not-authorized', true, /account-disabled.*"Gone away\."/],
    [saslFailure('temporary-auth-failure', '', target), 'connection-lost', false, /at the moment/],
    [named('StreamError', 'host-unknown'), 'invalid-config', true, /does not serve the domain d/],
    [named('StreamError', 'system-shutdown'), 'connection-lost', false, /system-shutdown/],
    [new Error('odd'), 'connection-lost', false, /odd/],
    ['text', 'connection-lost', false, /text/],
  ])('%s is told as %s', (raised, code, fatal, text) => {
    expect(failureOf(raised, target)).toMatchObject({
      fatal,
      error: { code, message: expect.stringMatching(text) },
    })
  })

  it('tell loopback from everything else', () => {
    for (const host of ['localhost', 'xmpp.localhost', '127.0.0.1', '127.8.9.1', '[::1]'])
      expect(isLoopback(host)).toBe(true)
    for (const host of ['example.org', 'localhost.example.org', '128.0.0.1', '127.0.0.1.example.org', '[::2]']) {
      expect(isLoopback(host)).toBe(false)
    }
  })
})

describe('ids', () => {
  it('are random also where a browser has no randomUUID', () => {
    vi.stubGlobal('crypto', { getRandomValues: <Bytes extends Uint8Array>(bytes: Bytes) => bytes.fill(10) })
    expect(randomId()).toBe('0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a')
    vi.unstubAllGlobals()
    expect(randomId()).not.toBe(randomId())
  })

  it('of messages ascend, each once, as UUIDs of version 7', () => {
    vi.useFakeTimers({ now: 1_700_000_000_000 })
    const ids: string[] = []
    for (let ms = 0; ms < 3; ms++) {
      for (let count = 0; count < 1000; count++) ids.push(createMessageId())
      vi.advanceTimersByTime(1)
    }
    vi.useRealTimers()
    expect(new Set(ids).size).toBe(3000)
    expect([...ids].sort()).toEqual(ids)
    expect(ids[0]?.slice(0, 15)).toBe('018bcfe5-6800-7')
    for (const id of ids) expect(id).toMatch(/^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/)
  })
})

describe('events', () => {
  it('reach each listener once, also when one takes itself off or another one is added meanwhile', () => {
    const emitter = new Emitter<{ tick: number }>()
    const heard: string[] = []
    const off = emitter.on('tick', (value) => {
      heard.push(`a${value}`)
      off()
      emitter.on('tick', (later) => heard.push(`c${later}`))
    })
    emitter.on('tick', (value) => heard.push(`b${value}`))
    emitter.emit('tick', 1)
    emitter.emit('tick', 2)
    expect(heard).toEqual(['a1', 'b1', 'b2', 'c2'])
  })
})
