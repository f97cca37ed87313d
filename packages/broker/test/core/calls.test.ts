/** What may pass while a request is open: docs/protocol-reliable.md "Progress", "Cancelling". */
import { PROGRESS_MAX } from '@xmq/protocol'
import { describe, expect, test } from 'vitest'
import { bounce, Conversation } from './conversation.ts'

const W = 'w@localhost/1'
const Q = 'any.localhost'

describe('news of a request', () => {
  const ASKER = 'shop@localhost/1'
  const asked = ({ progress = true } = {}): { c: Conversation; hop: string } => {
    const c = new Conversation().receive(
      `<iq type='set' id='s' from='${W}' to='${Q}'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='60' load='0'>` +
        `<consume xmlns='xmq:queue:1' credit='4'/></xmq></iq>`,
    )
    c.receive(`<iq type='result' id='${c.pingId()}' from='${W}' to='${Q}'/>`)
    const call = `<call xmlns='xmq:queue:1'${progress ? " progress='true'" : ''}/>`
    c.receive(
      `<iq type='get' id='q1' from='${ASKER}' to='${Q}'><xmq xmlns='xmq:topic' topic='t'><ask xmlns='urn:x'/>${call}</xmq></iq>`,
    )
    return { c, hop: c.stanzas[0]?.attrs.get('id') ?? '' }
  }
  const news = (hop: string, n: number, from = W, payload = "<at xmlns='urn:x'/>") =>
    `<message type='headline' from='${from}' to='${Q}'><progress xmlns='xmq:queue:1' call='${hop}' n='${n}'>${payload}</progress></message>`

  test('go to the requester under its own id, in order', () => {
    const { c, hop } = asked()
    expect(c.receive(news(hop, 1)).sent).toEqual([
      `<message type='headline' from='${Q}' to='${ASKER}'><progress xmlns='xmq:queue:1' call='q1' n='1'><at xmlns='urn:x'/></progress></message>`,
    ])
    expect(c.receive(news(hop, 3)).sent).toHaveLength(1)
    expect(c.receive(news(hop, 2)).sent).toEqual([])
    expect(c.receive(news(hop, 3)).sent).toEqual([])
    c.receive(`<iq type='result' id='${hop}' from='${W}' to='${Q}'/>`)
    expect(c.receive(news(hop, 4)).sent).toEqual([])
  })

  test.each([
    ['from another session', (hop: string) => news(hop, 1, 'w@localhost/other')],
    ['from the requester', (hop: string) => news(hop, 1, ASKER)],
    ["under the requester's id", () => news('q1', 1)],
    ['without a number', (hop: string) => news(hop, 1).replace("n='1'", '')],
    ['that are too large', (hop: string) => news(hop, 1, W, `<at xmlns='urn:x'>${'x'.repeat(16_384)}</at>`)],
  ])('%s are dropped without a word', (_, of) => {
    const { c, hop } = asked()
    c.receive(of(hop))
    expect([c.sent, c.named('ignored').length]).toEqual([[], 1])
  })

  test('that nobody wants are dropped', () => {
    const { c, hop } = asked({ progress: false })
    expect(c.receive(news(hop, 1)).sent).toEqual([])
  })

  test('are bounded in number', () => {
    const { c, hop } = asked()
    let relayed = 0
    for (let n = 1; n <= PROGRESS_MAX + 5; n++) relayed += c.receive(news(hop, n)).sent.length
    expect(relayed).toBe(PROGRESS_MAX)
  })
})

describe('a request that is cancelled', () => {
  const ASKER = 'shop@localhost/1'
  const cancel = (call: string, from = ASKER) =>
    `<iq type='set' id='c1' from='${from}' to='${Q}'><cancel xmlns='xmq:queue:1' call='${call}'/></iq>`
  const asked = (consume = "<consume xmlns='xmq:queue:1' credit='4'/>"): { c: Conversation; hop: string } => {
    const c = new Conversation().receive(
      `<iq type='set' id='s' from='${W}' to='${Q}'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='60' load='0'>${consume}</xmq></iq>`,
    )
    c.receive(`<iq type='result' id='${c.pingId()}' from='${W}' to='${Q}'/>`).request('t', { from: ASKER })
    return { c, hop: c.stanzas[0]?.attrs.get('id') ?? '' }
  }

  test('is over: its worker is told, the requester answered, a late answer dropped', () => {
    const { c, hop } = asked()
    c.receive(cancel('q1'))
    expect(c.sent[0]).toBe(`<iq type='result' id='c1' from='${Q}' to='${ASKER}'/>`)
    expect(c.sent[1]).toBe(
      `<iq type='set' id='cancel:${hop}' from='${Q}' to='${W}'><cancel xmlns='xmq:queue:1' call='${hop}'/></iq>`,
    )
    expect(c.sent[2]).toMatch(/^<iq type='error' id='q1' .*code='timeout'/)
    expect(c.named('answered')).toMatchObject([{ outcome: 'aborted' }])
    expect(c.core.stats().openRequests).toBe(0)
    c.receive(`<iq type='result' id='cancel:${hop}' from='${W}' to='${Q}'/>`)
    expect([c.sent, c.events]).toEqual([[], []])
    expect(c.receive(`<iq type='result' id='${hop}' from='${W}' to='${Q}'/>`).sent).toEqual([])
  })

  test('frees the credit that it took', () => {
    const { c } = asked("<consume xmlns='xmq:queue:1' credit='1'/>")
    expect(c.request('t', { id: 'q2' }).recipients).toEqual([ASKER])
    c.receive(cancel('q1'))
    expect(c.request('t', { id: 'q3' }).recipients).toEqual([W])
  })

  test.each([
    ['by another session', 'q1', 'shop@localhost/2'],
    ['by its worker', 'q1', W],
    ['under an id that is not open', 'q9', ASKER],
  ])('%s is not', (_, call, from) => {
    const { c } = asked()
    expect(c.receive(cancel(call, from)).sent).toEqual([expect.stringContaining("code='not-found'")])
    expect(c.core.stats().openRequests).toBe(1)
  })

  test('is not told to a plain worker, whose answer is dropped', () => {
    const { c, hop } = asked('')
    expect(c.receive(cancel('q1')).recipients).toEqual([ASKER, ASKER])
    expect(c.receive(`<iq type='result' id='${hop}' from='${W}' to='${Q}'/>`).sent).toEqual([])
  })

  test('by its time, or by the end of a requester that consumes here, is told to its worker, too', () => {
    const { c, hop } = asked()
    const told = `<iq type='set' id='cancel:${hop}' from='${Q}' to='${W}'><cancel xmlns='xmq:queue:1' call='${hop}'/></iq>`
    expect(c.wait(30_000).sent).toContain(told)
    const other = asked()
    other.c.sub(ASKER, 'elsewhere').receive(`<presence type='unavailable' from='${ASKER}' to='${Q}'/>`)
    other.c.receive(bounce('iq', other.c.pingId() as string, ASKER, Q))
    expect(other.c.sent).toContain(told)
    expect(other.c.core.stats().openRequests).toBe(0)
  })
})

describe('the credit of a reliable worker', () => {
  const sub = `<iq type='set' id='s' from='${W}' to='${Q}'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='60' load='0'><consume xmlns='xmq:queue:1' credit='1'/></xmq></iq>`
  const ask = (id: string): string =>
    `<iq type='get' id='${id}' from='shop@localhost/1' to='${Q}'><xmq xmlns='xmq:topic' topic='t'><ask xmlns='urn:x'/></xmq></iq>`
  const asked = (c: Conversation) =>
    c.stanzas.filter(({ attrs }) => attrs.get('to') === W && attrs.get('type') === 'get')

  test('holds while its session is in doubt, too: nobody else is there', () => {
    const c = new Conversation().receive(sub)
    c.receive(`<iq type='result' id='${c.pingId()}' from='${W}' to='${Q}'/>`)
    c.receive(`<presence type='unavailable' from='${W}' to='${Q}'/>`)
    expect(asked(c.receive(ask('q1')))).toHaveLength(1)
    expect(c.receive(ask('q2')).sent.join('')).toContain("code='overloaded'")
  })

  test('counts a request that it has from before it subscribed again', () => {
    const c = new Conversation().receive(sub)
    c.receive(`<iq type='result' id='${c.pingId()}' from='${W}' to='${Q}'/>`)
    const [hop] = asked(c.receive(ask('q1')))
    c.receive(`<iq type='set' id='d' from='${W}' to='${Q}'><xmq xmlns='xmq:command' command='del' topic='t'/></iq>`)
    c.receive(sub)
    expect(c.receive(ask('q2')).sent.join('')).toContain("code='overloaded'")
    c.receive(`<iq type='result' id='${hop?.attrs.get('id')}' from='${W}' to='${Q}'/>`)
    expect(asked(c.receive(ask('q3')))).toHaveLength(1)
    expect(c.core.stats()).toMatchObject({ consumers: 1, openRequests: 1 })
  })

  test('is forgotten with its last request, where it is subscribed to nothing', () => {
    const c = new Conversation().receive(sub)
    c.receive(`<iq type='result' id='${c.pingId()}' from='${W}' to='${Q}'/>`)
    const [hop] = asked(c.receive(ask('q1')))
    c.receive(`<iq type='set' id='d' from='${W}' to='${Q}'><xmq xmlns='xmq:command' command='del' topic='t'/></iq>`)
    expect(c.core.stats()).toMatchObject({ consumers: 1, openRequests: 1 })
    c.receive(`<iq type='result' id='${hop?.attrs.get('id')}' from='${W}' to='${Q}'/>`)
    expect(c.core.stats()).toMatchObject({ consumers: 0, sessions: 0, openRequests: 0 })
  })
})

test('a worker that is subscribed to a pattern is asked of the topics that it means, and of no others', () => {
  const c = new Conversation().receive(
    `<iq type='set' id='s' from='${W}' to='${Q}'><xmq xmlns='xmq:command' command='sub' topic='t.*' ttl='60' load='0'><consume xmlns='xmq:queue:1' credit='1'/></xmq></iq>`,
  )
  const ask = (topic: string): string =>
    `<iq type='get' id='q' from='shop@localhost/1' to='${Q}'><xmq xmlns='xmq:topic' topic='${topic}'><ask xmlns='urn:x'/></xmq></iq>`
  expect(c.receive(ask('u.x')).sent.join('')).toContain("code='no-recipients'")
  c.receive(ask('t.x'))
  expect(c.stanzas.filter(({ attrs }) => attrs.get('to') === W && attrs.get('type') === 'get')).toHaveLength(1)
})
