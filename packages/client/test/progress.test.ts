/** News of requests and their cancelling, on a virtual clock. docs/protocol-reliable.md "Progress", "Cancelling". */
import { encodeCall, encodeJson, parseElement } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import type { Effect } from '../src/session/index.ts'
import { holding, OWN, QUEUE, sent, SessionBench, stanzas, verdicts } from './session-bench.ts'

function ask(bench: SessionBench, ref: number, timeoutMs = 60_000): Effect[] {
  const stanza = parseElement(`<iq type='get' to='${QUEUE}' id='q${ref}'><xmq xmlns='xmq:topic' topic='t'/></iq>`)
  const call = encodeCall({ progress: true })
  return bench.input({ type: 'request', ref, topic: 't', bytes: 100, stanza, call, timeoutMs })
}

const news = (call: string, n: number, from = QUEUE, value = n): string =>
  `<message type='headline' from='${from}' to='${OWN}'><progress xmlns='xmq:queue:1' call='${call}' n='${n}'>` +
  `<json xmlns='urn:xmpp:json:0'>${value}</json></progress></message>`
const told = (effects: readonly Effect[]): unknown[] =>
  effects.flatMap((one) => (one.type === 'progress' ? [one.payload] : []))

describe('news', () => {
  it('of an open request count from the queue, in turn', () => {
    const bench = new SessionBench()
    bench.reliable()
    ask(bench, 1)
    expect(told(bench.receive(news('q1', 1)))).toEqual([{ kind: 'json', text: '1' }])
    expect(told(bench.receive(news('q1', 3)))).toEqual([{ kind: 'json', text: '3' }])
    for (const dropped of [news('q1', 3), news('q1', 2), news('q9', 4), news('q1', 4, 'mallory@localhost/x')]) {
      expect(told(bench.receive(dropped))).toEqual([])
    }
  })

  it('go out under the id that the worker was asked with, over the connection that asked', () => {
    const bench = new SessionBench()
    bench.reliable()
    bench.input({ type: 'subscribe', topic: 't' })
    const [delivered] = bench.receive(
      `<iq type='get' id='hop' from='${QUEUE}' to='${OWN}'><xmq xmlns='xmq:topic' topic='t'><call xmlns='xmq:queue:1' progress='true'/></xmq></iq>`,
    )
    if (delivered?.type !== 'deliver') throw new Error('It is not delivered.')
    expect(delivered.delivery.wantsProgress).toBe(true)
    const progress = { type: 'progress', delivery: delivered.delivery, n: 1, payload: [encodeJson('1')] } as const
    expect(sent(bench.input(progress))).toEqual([
      `<message type='headline' to='${QUEUE}'><progress xmlns='xmq:queue:1' call='hop' n='1'><json xmlns='urn:xmpp:json:0'>1</json></progress></message>`,
    ])
    bench.down()
    bench.again()
    expect(sent(bench.input(progress))).toEqual([])
  })
})

describe('a request that nobody waits for', () => {
  it('is cancelled at a reliable queue: by its caller, its timeout, and the end of the client', () => {
    const bench = new SessionBench()
    bench.reliable()
    const error = { code: 'aborted' } as never
    for (const ref of [1, 2, 3]) ask(bench, ref, ref === 2 ? 1000 : 60_000)
    const byCaller = bench.input({ type: 'cancel', ref: 1, error })
    expect(holding(byCaller, 'cancel').map((iq) => [iq.attrs.get('type'), iq.attrs.get('to')])).toEqual([
      ['set', QUEUE],
    ])
    expect(sent(byCaller).join('')).toContain("<cancel xmlns='xmq:queue:1' call='q1'/>")
    expect(sent(bench.pass(1000)).join('')).toContain("call='q2'")
    const closing = bench.input({ type: 'close', error: undefined })
    expect(sent(closing).join('')).toContain("call='q3'")
    expect(verdicts(closing)).toEqual(['failed 3 closed'])
  })

  it('is forgotten towards a plain queue', () => {
    const bench = new SessionBench()
    bench.online()
    ask(bench, 1)
    expect(stanzas(bench.input({ type: 'cancel', ref: 1, error: { code: 'aborted' } as never }))).toEqual([])
  })

  it('stops the handler that has it, on the word of the queue alone', () => {
    const bench = new SessionBench()
    bench.reliable()
    const cancel = (from: string): string =>
      `<iq type='set' id='x' from='${from}' to='${OWN}'><cancel xmlns='xmq:queue:1' call='hop'/></iq>`
    const forged = bench.receive(cancel('mallory@localhost/x'))
    expect([forged.some(({ type }) => type === 'cancelled'), stanzas(forged)[0]?.attrs.get('type')]).toEqual([
      false,
      'error',
    ])
    const real = bench.receive(cancel(QUEUE))
    expect(stanzas(real)[0]?.attrs.get('type')).toBe('result')
    expect(real).toContainEqual(expect.objectContaining({ type: 'cancelled', id: 'hop' }))
  })
})
