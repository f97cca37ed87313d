import { afterEach, describe, expect, it, vi } from 'vitest'
import { listenForStop } from '../src/index.ts'

afterEach(() => void vi.useRealTimers())

describe('a stop signal', () => {
  it('asks to stop, insists half a second later, and is one signal when it comes twice at once', () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    const heard: unknown[] = []
    const release = listenForStop(
      () => heard.push('stop'),
      (exitCode) => heard.push(exitCode),
    )
    process.emit('SIGINT')
    process.emit('SIGINT')
    vi.advanceTimersByTime(500)
    process.emit('SIGTERM')
    expect(heard).toEqual(['stop'])
    vi.advanceTimersByTime(1)
    process.emit('SIGINT')
    process.emit('SIGTERM')
    expect(heard).toEqual(['stop', 130, 143])
    release()
    process.emit('SIGTERM')
    expect(heard).toHaveLength(3)
    expect(process.listenerCount('SIGINT')).toBe(0)
  })
})
