import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createEventLog } from '../src/log-events.ts'
import { createLogger, type LoggerOptions } from '../src/log.ts'

function lines(options: Partial<LoggerOptions> = {}) {
  const written: string[] = []
  const log = createLogger({
    write: (line) => written.push(line),
    now: () => new Date('2026-01-02T03:04:05.678Z'),
    ...options,
  })
  return { log, written }
}

describe('JSON lines', () => {
  it('have time, level, message and fields, one object a line', () => {
    const { log, written } = lines()
    log.info('link up', { domain: 'q.localhost', missing: undefined, n: 3 })
    expect(written).toEqual([
      '{"time":"2026-01-02T03:04:05.678Z","level":"info","message":"link up","domain":"q.localhost","n":3}\n',
    ])
  })

  it('never hold a secret, nor a second line', () => {
    const { log, written } = lines()
    log.error('a\nb', { secret: 'hunter2', clientPassword: 'hunter2', level: 'fake' })
    expect(written.join('')).not.toContain('hunter2')
    expect(written.join('').match(/\n/g)).toHaveLength(1)
    expect(JSON.parse(written[0] ?? '')).toMatchObject({ level: 'error', secret: '(hidden)' })
  })

  it('are cut at a bound', () => {
    const { log, written } = lines()
    log.warn('x'.repeat(10_000), { text: 'y'.repeat(10_000) })
    expect(written[0]?.length).toBeLessThan(1200)
  })
})

describe('text lines', () => {
  it('are readable', () => {
    const { log, written } = lines({ format: 'text' })
    log.warn('refused', { queue: 'q.localhost', text: 'No such topic' })
    expect(written).toEqual(['03:04:05.678 warn  refused queue=q.localhost text="No such topic"\n'])
  })

  it('hold no control sequence that a stranger chose', () => {
    const { log, written } = lines({ format: 'text' })
    log.info('subscribed', { consumer: 'a@b/\u001b[2Jx\r\nfake line', topic: '\u202egnp' })
    // oxlint-disable-next-line no-control-regex -- control characters are what it looks for
    expect(written.join('')).not.toMatch(/[\u001b\r\u202e]|\n./)
  })

  it('have colours only when asked', () => {
    const plain = lines({ format: 'text' })
    const colored = lines({ format: 'text', color: true })
    plain.log.info('x', { a: 1 })
    colored.log.info('x', { a: 1 })
    expect(plain.written[0]).not.toContain('\u001b')
    expect(colored.written[0]).toContain('\u001b[36minfo')
  })
})

it('lines below the level are not written', () => {
  const { log, written } = lines({ level: 'warn' })
  log.info('x')
  log.debug('x')
  log.warn('y')
  expect(written).toHaveLength(1)
  expect(log.isEnabled('info')).toBe(false)
})

describe('core events', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })
  const refused = (queue: string, n = 0) =>
    ({ name: 'refused', queue, sender: `a@b/${n}`, code: 'forbidden', text: 'No.' }) as const

  it('of a flood of refusals make two lines in ten seconds', () => {
    const { log, written } = lines()
    const events = createEventLog(log)
    for (let i = 0; i < 100_000; i++) events.write(refused('q.localhost', i))
    expect(written).toHaveLength(1)
    vi.advanceTimersByTime(10_000)
    expect(written).toHaveLength(2)
    expect(JSON.parse(written[1] ?? '')).toMatchObject({ message: 'refused (and 99999 more)', more: 99_999 })
    expect(vi.getTimerCount()).toBe(0)
  })

  it('of many kinds are counted together beyond a bound', () => {
    const { log, written } = lines()
    const events = createEventLog(log)
    for (let i = 0; i < 5000; i++) events.write(refused(`q${i}.localhost`))
    expect(written.length).toBeLessThan(300)
    events.close()
    expect(written.length).toBeLessThan(300)
  })

  it('that concern a single message are written at debug only', () => {
    const published = { name: 'published', queue: 'q.localhost', topic: 't', recipients: 1 } as const
    const info = lines()
    createEventLog(info.log).write(published)
    const debug = lines({ level: 'debug' })
    createEventLog(debug.log).write(published)
    expect(info.written).toEqual([])
    expect(debug.written).toHaveLength(1)
  })
})
