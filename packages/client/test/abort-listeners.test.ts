/** One signal for many publishes. Contract: src/abort-listeners.ts, and the `signal` of publishes and requests. */
import { defaultMaxListeners, getEventListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import { defineTopic, XmqError } from '../src/index.ts'
import { Room } from '../src/room.ts'
import { onAbort } from '../src/abort-listeners.ts'
import { startSetting } from './setting.ts'

const MANY = defaultMaxListeners * 3
const note = defineTopic('note')

function listenersOf(signal: AbortSignal): number {
  return getEventListeners(signal, 'abort').length
}

describe('one signal', () => {
  it('has one listener while many publishes wait on it, and none after they ended', async () => {
    const setting = await startSetting({}, { mode: 'reliable' })
    const mq = await setting.connect()
    const abort = new AbortController()
    const publishes = Array.from({ length: MANY }, (_, index) => mq.publish(note, index, { signal: abort.signal }))
    const listeners = listenersOf(abort.signal)
    const published = await Promise.all(publishes)
    expect(listeners).toBe(1)
    expect(new Set(published.map(({ id }) => id)).size).toBe(MANY)
    expect(listenersOf(abort.signal)).toBe(0)
  })

  it('gives up every publish that waits on it', async () => {
    const setting = await startSetting({}, { mode: 'reliable' })
    const mq = await setting.connect()
    const abort = new AbortController()
    const outcomes = mq.publishMany(
      note,
      Array.from({ length: MANY }, (_, payload) => ({ payload })),
      { signal: abort.signal },
    )
    abort.abort()
    const codes = (await outcomes).map((outcome) => (outcome.status === 'failed' ? outcome.error.code : 'published'))
    expect(codes).toEqual(Array.from({ length: MANY }, () => 'aborted'))
    expect(listenersOf(abort.signal)).toBe(0)
  })

  it('has one listener while many wait for room', async () => {
    const room = new Room({ countMax: 1, bytesMax: 100 })
    const { signal } = new AbortController()
    expect(room.enter(1, { whenFull: 'wait', signal })).toBeUndefined()
    const waiting = Array.from({ length: MANY }, async () => room.enter(1, { whenFull: 'wait', signal }))
    expect(listenersOf(signal)).toBe(1)
    room.close(new XmqError('closed', 'over'))
    const ends = await Promise.allSettled(waiting)
    expect(ends.every(({ status }) => status === 'rejected')).toBe(true)
    expect(listenersOf(signal)).toBe(0)
  })

  it('calls those that listen still, also when one of them stops another', () => {
    const abort = new AbortController()
    const heard: string[] = []
    const offs = new Map<string, () => void>()
    for (const name of ['a', 'b', 'c']) {
      offs.set(
        name,
        onAbort(abort.signal, () => {
          heard.push(name)
          offs.get('c')?.()
        }),
      )
    }
    offs.get('b')?.()
    abort.abort()
    expect(heard).toEqual(['a'])
  })
})
