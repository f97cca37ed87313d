/**
 * What `xmq-worker run` prints of a worker's life: a line for a person, or an object for a program, for each change.
 * Owns the counts between two health lines and the last trouble told, so that a retry every second does not fill a screen.
 *
 *   ready | offline | back | waiting | subscription-failed | failed | warning | health | stopping | stopped
 */
import type { Worker } from '@xmq/client'
import { type Io, type OutputFormat, paint } from './terminal.ts'

/** The account of one worker's life. */
export interface Report {
  /** Resolves with the reason when the worker gives up by itself: its password was changed, say. Else never. */
  readonly gaveUp: Promise<Error>
  ready(): void
  /** How it is doing, and what it did since the last time. */
  health(): void
  stopping(): void
  stopped(): void
}

type Colour = 'green' | 'yellow' | 'red' | 'dim'
type Details = Readonly<Record<string, unknown>>

/** Begins to follow a worker; before its start, so that nothing is missed. */
export function reportOn(worker: Worker, io: Io, format: OutputFormat, file: string): Report {
  const startedAt = Date.now()
  const topics = new Set<string>()
  const { tell, tellTrouble, endTrouble } = createTeller(io, format)
  let done = 0
  let failed = 0
  let isReady = false
  let stopping = false

  worker.on('offline', ({ reason, retryAt, fatal }) => {
    if (!stopping && !fatal) tellTrouble('offline', reason, retry(retryAt))
  })
  worker.on('waiting', ({ reason, retryAt }) => tellTrouble('waiting', reason, retry(retryAt)))
  worker.on('subscription-failed', ({ topic, error, retryAt }) =>
    tellTrouble('subscription-failed', error, { topic, ...retry(retryAt) }),
  )
  worker.on('subscribed', ({ topic }) => {
    topics.add(topic)
    // Only now messages come again; being online alone is not that.
    if (endTrouble() && isReady) tell('back', 'green', `as ${jidOf(worker)}`, { jid: jidOf(worker) })
  })
  worker.on('warning', ({ message }) => tell('warning', 'yellow', message, { text: message }))
  worker.on('completed', () => void done++)
  worker.on('failed', ({ topic, kind, id, error }) => {
    failed++
    const text = `${kind} ${id} to ${topic}: ${error.message}`
    tell('failed', 'red', text, { topic, kind, id, code: error.code, text: error.message })
  })
  const gaveUp = new Promise<Error>((resolve) => {
    worker.on('closed', ({ reason }) => {
      if (reason !== undefined && !stopping) resolve(reason)
    })
  })
  return {
    gaveUp,
    ready() {
      isReady = true
      const { queue } = worker
      const jid = jidOf(worker)
      const names = [...topics].sort((left, right) => left.localeCompare(right))
      const text = `${file}: ${names.join(', ')} on ${queue}, as ${jid}`
      tell('ready', 'green', text, { file, queue, jid, topics: names, pid: process.pid })
    },
    health() {
      const { state } = worker.status
      const { running, waiting } = worker.work
      const memoryMiB = Math.round(process.memoryUsage.rss() / 2 ** 20)
      const text = `${state}, ${running} running, ${waiting} waiting, ${done} done, ${failed} failed, ${memoryMiB} MiB`
      const uptimeSeconds = Math.round((Date.now() - startedAt) / 1000)
      tell('health', 'dim', text, { state, running, waiting, done, failed, memoryMiB, uptimeSeconds })
    },
    stopping() {
      stopping = true
      const { running, waiting } = worker.work
      tell('stopping', 'dim', `${running} running, ${waiting} waiting`, { running, waiting })
    },
    stopped() {
      tell('stopped', 'dim', `${done} done, ${failed} failed`, { done, failed })
    },
  }
}

interface Teller {
  readonly tell: (event: string, colour: Colour, text: string, details?: Details) => void
  /** The same trouble again is not news; programs get every attempt. */
  readonly tellTrouble: (event: string, error: Error & { readonly code?: string }, details: Details) => void
  /** Whether there was one. */
  readonly endTrouble: () => boolean
}

function createTeller(io: Io, format: OutputFormat): Teller {
  let trouble = ''
  const tell: Teller['tell'] = (event, colour, text, details = {}) => {
    if (format === 'json') {
      io.stdout.write(`${JSON.stringify({ event, at: new Date().toISOString(), ...details })}\n`)
      return
    }
    const time = paint(io, 'stdout', 'dim', new Date().toTimeString().slice(0, 8))
    io.stdout.write(`${time} ${paint(io, 'stdout', colour, event)} ${text}\n`)
  }
  return {
    tell,
    tellTrouble(event, error, details) {
      const { message: text } = error
      if (format === 'text' && trouble === text) return
      trouble = text
      tell(event, 'yellow', text, { code: error.code, text, ...details })
    },
    endTrouble() {
      const was = trouble !== ''
      trouble = ''
      return was
    },
  }
}

function retry(retryAt: number): Details {
  return { retryAt: new Date(retryAt).toISOString() }
}

function jidOf({ status }: Worker): string {
  return status.state === 'online' ? status.jid : 'offline'
}
