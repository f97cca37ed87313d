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

  it('of a flood of refusals make one line in ten seconds, with their number', () => {
    const { log, written } = lines()
    const events = createEventLog(log)
    for (let i = 0; i < 100_000; i++) events.write(refused('q.localhost', i))
    expect(written).toHaveLength(1)
    vi.advanceTimersByTime(10_000)
    expect(written).toHaveLength(2)
    expect(JSON.parse(written[1] ?? '')).toMatchObject({ message: 'refused (and 99999 more)', more: 99_999 })
    vi.advanceTimersByTime(10_000)
    expect(written).toHaveLength(2)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('of one kind never make more than two lines in ten seconds, whenever another kind began', () => {
    const writtenAt: number[] = []
    const { log } = lines({
      write: (line) => {
        if (line.includes('slow.localhost')) writtenAt.push(Date.now())
      },
    })
    const events = createEventLog(log, { queues: ['early.localhost', 'slow.localhost'] })
    events.write(refused('early.localhost'))
    vi.advanceTimersByTime(9900)
    for (let ms = 0; ms < 60_000; ms += 50) {
      events.write(refused('slow.localhost'))
      vi.advanceTimersByTime(50)
    }
    expect(writtenAt.length).toBeGreaterThan(4)
    for (const start of writtenAt) {
      expect(writtenAt.filter((at) => at >= start && at < start + 10_000).length).toBeLessThanOrEqual(2)
    }
  })

  it('to addresses that a sender made up are one kind', () => {
    const { log, written } = lines()
    const events = createEventLog(log, { queues: ['q.localhost'] })
    for (let i = 0; i < 1000; i++) events.write(refused(`node${i}@q.localhost`))
    expect(written).toHaveLength(1)
    events.write(refused('q.localhost'))
    expect(written).toHaveLength(2)
    events.close()
    expect(JSON.parse(written[2] ?? '')).toMatchObject({ queue: 'other', more: 999 })
  })

  it('that differ in a number or in quoted text are one kind', () => {
    const { log, written } = lines()
    const events = createEventLog(log, { queues: ['q.localhost'] })
    for (let i = 0; i < 1000; i++) {
      const what = `a message that broke a limit: 'id${i}' has ${i} characters`
      events.write({ name: 'ignored', queue: 'q.localhost', sender: `a@b/${i}`, what })
      events.tally(`fault send '${i}' of ${i}`, 'error', 'fault', { i })
    }
    expect(written).toHaveLength(2)
  })

  it('of many kinds are counted together beyond a bound, errors apart from warnings', () => {
    const { log, written } = lines()
    const queues = Array.from({ length: 5000 }, (_, i) => `q${i}.localhost`)
    const events = createEventLog(log, { queues })
    for (const queue of queues) events.write(refused(queue))
    expect(written.length).toBeLessThan(300)
    events.tally('fault', 'error', 'a fault', {})
    expect(written.at(-1)).toContain('a fault')
    const before = written.length
    events.close()
    expect(written.slice(before).map((line) => JSON.parse(line) as unknown)).toEqual([
      expect.objectContaining({ message: expect.stringMatching(/^other lines \(and \d+ more\)$/) }),
    ])
  })

  describe('of the store', () => {
    const trouble = (text: string) => ({ name: 'store', queue: '', isAvailable: false, text }) as const
    const over = { name: 'store', queue: '', isAvailable: true, text: 'The store answers again.' } as const
    const said = (written: readonly string[]) =>
      written.map((line) => {
        const { message, text, more } = JSON.parse(line) as Record<string, unknown>
        return [message, text ?? more]
      })
    const FAILS = 'the store does not answer: publishes are refused'
    const ANSWERS = 'the store answers again'

    it('tell of trouble at once, and of its end when it has held', () => {
      const { log, written } = lines()
      const events = createEventLog(log)
      events.write(trouble('The disk is full.'))
      expect(said(written)).toEqual([[FAILS, 'The disk is full.']])
      events.write(over)
      vi.advanceTimersByTime(1999)
      expect(written).toHaveLength(1)
      vi.advanceTimersByTime(1)
      expect(said(written).slice(1)).toEqual([[ANSWERS, undefined]])
      events.write(trouble('The disk is full.'))
      expect(written).toHaveLength(3)
    })

    it('tell once of a disk that is nearly full, however often it takes something and then nothing', () => {
      const { log, written } = lines()
      const events = createEventLog(log)
      for (let time = 0; time < 1000; time++) {
        events.write(trouble(`The disk is full: ${time} bytes are left.`))
        vi.advanceTimersByTime(50)
        events.write(over)
        vi.advanceTimersByTime(50)
      }
      expect(written).toHaveLength(1)
      vi.advanceTimersByTime(2000)
      expect(said(written).slice(1)).toEqual([[ANSWERS, 999]])
      expect(vi.getTimerCount()).toBe(0)
    })

    it('tell of another reason at once', () => {
      const { log, written } = lines()
      const events = createEventLog(log)
      for (const text of ['The disk is full.', 'It is read-only.', 'The disk is full.']) {
        events.write(trouble(text))
        events.write(over)
      }
      expect(said(written)).toEqual([
        [FAILS, 'The disk is full.'],
        [FAILS, 'It is read-only.'],
      ])
      for (const letter of 'abcdefghijklmnopqrstuvwxyz') events.write(trouble(`Something else: ${letter}`))
      expect(written).toHaveLength(8)
    })

    it('tell of what is over also when the broker ends', () => {
      const { log, written } = lines()
      const events = createEventLog(log)
      events.write(trouble('The disk is full.'))
      events.write(over)
      events.close()
      expect(said(written).at(-1)).toEqual([ANSWERS, undefined])
      expect(vi.getTimerCount()).toBe(0)
    })
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
