/** What a caller without types may write: refused with a word that helps, never ignored. */
import { describe, expect, it } from 'vitest'
import {
  type Client,
  connect,
  type ConnectOptions,
  defineTopic,
  type PublishItem,
  type PublishOptions,
  type RequestOptions,
  Worker,
  type WorkerOptions,
} from '../src/index.ts'
import { rejection, startSetting } from './setting.ts'

const good = { service: 'xmpp://127.0.0.1:1', jid: 'shop@localhost', password: 'pw', queue: 'q.localhost' }

/** Options as somebody without types may give them. */
const slips: readonly [what: string, options: unknown, text: RegExp][] = [
  ['none', undefined, /takes an object of options, and got undefined\. Known: service, jid/],
  ['null', null, /and got null/],
  ['an address', 'xmpp://localhost', /and got a string/],
  [
    'a misspelt name',
    { ...good, pasword: 'pw' },
    /^pasword is no option of .*; did you mean 'password'\? Known: service/,
  ],
  ['a name like no other', { ...good, colour: 'red' }, /^colour is no option of .*\(\)\. Known: service, jid/],
  ['a misspelt name within', { ...good, backoff: { bse: 5 } }, /^bse is no option of 'backoff'; did you mean 'base'\?/],
  ['a misspelt event', { ...good, on: { onlne: () => {} } }, /^on\.onlne is no event; did you mean 'online'\?/],
  ['what the prototype of all objects has', { ...good, constructor: 1 }, /^constructor is no option/],
]

describe('connect', () => {
  it.each(slips)('refuses %s', async (_what, options, text) => {
    const error = await rejection(connect(options as ConnectOptions))
    expect(error).toMatchObject({ code: 'invalid-config', message: expect.stringMatching(text) })
  })

  it('names the nearest of its own options', async () => {
    const error = await rejection(connect({ ...good, publishTimeuot: '1s' } as ConnectOptions))
    expect(error.message).toMatch(/^publishTimeuot is no option of connect\(\); did you mean 'publishTimeout'\?/)
  })
})

describe('a worker', () => {
  it.each([...slips, ['a misspelt name of its own', { ...good, prefetc: 5 }, /did you mean 'prefetch'\?/] as const])(
    'refuses %s',
    (_what, options, text) => {
      expect(() => new Worker(options as WorkerOptions)).toThrow(
        expect.objectContaining({ code: 'invalid-config', message: expect.stringMatching(text) }),
      )
    },
  )

  it('refuses what is no option of a topic', () => {
    const worker = new Worker(good)
    expect(() => worker.handle('t', () => {}, { nmae: 'billing' } as object)).toThrow(/nmae is no option of handle\(\)/)
    expect(() => defineTopic('t', { inptu: {} } as object)).toThrow(/inptu is no option .*did you mean 'input'\?/)
  })

  it('does not mind what options inherit', () => {
    const options: object = Object.assign(Object.create({ colour: 'red' }), good)
    expect(new Worker(options as WorkerOptions).queue).toBe(good.queue)
  })
})

describe('a client', () => {
  const slip = { timout: 5 } as object
  const nothing: unknown = null

  it.each<[string, (client: Client) => Promise<unknown>]>([
    ['publish()', (client) => client.publish('t', 1, slip)],
    ['publishMany()', (client) => client.publishMany('t', [], slip)],
    ['request()', (client) => client.request('t', 1, slip)],
    ['ping()', (client) => client.ping(slip)],
    ['forget()', (client) => client.forget('billing:t', slip)],
    ['deadLetters.list()', (client) => client.deadLetters.list(slip).next()],
    ['deadLetters.show()', (client) => client.deadLetters.show(1, slip)],
    ['deadLetters.replay()', (client) => client.deadLetters.replay({ all: true }, slip)],
    ['deadLetters.purge()', (client) => client.deadLetters.purge({ all: true }, slip)],
  ])('refuses what is no option of %s', async (method, act) => {
    const client = await (await startSetting()).connect()
    const error = await rejection(act(client))
    expect(error).toMatchObject({ code: 'invalid-config' })
    expect(error.message).toContain(`timout is no option of ${method}`)
  })

  it('refuses null as options', async () => {
    const client = await (await startSetting()).connect()
    for (const act of [
      () => client.publish('t', 1, nothing as PublishOptions),
      () => client.request('t', 1, nothing as RequestOptions),
    ]) {
      expect(await rejection(act())).toMatchObject({
        code: 'invalid-config',
        message: expect.stringMatching(/got null/),
      })
    }
  })

  it('does not purge every dead letter where the topic is misspelt', async () => {
    const client = await (await startSetting({}, { mode: 'auto' })).connect()
    const error = await rejection(client.deadLetters.purge({ all: true, topci: 'images' } as { all: true }))
    expect(error).toMatchObject({ code: 'invalid-config', message: expect.stringMatching(/did you mean 'topic'\?/) })
  })

  it('tells of an item of publishMany what it has too much, and publishes the others', async () => {
    const client = await (await startSetting({}, { mode: 'auto' })).connect()
    const items = [{ payload: 1, id: 'a', dely: '10m' } as PublishItem<number>, { payload: 2, id: 'b' }]
    expect(await client.publishMany('t', items)).toMatchObject([
      { status: 'failed', id: 'a', error: { code: 'invalid-config', message: expect.stringMatching(/^dely is no/) } },
      { status: 'published', published: { id: 'b' } },
    ])
  })
})
