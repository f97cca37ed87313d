/**
 * The processes of a benchmark: each serves questions over IPC, one answer each, and ends with its parent.
 *
 *     const producers = await startChild('producers.mjs', options)      serve(async (options) => ({ start() {…}, sample() {…} }))
 *     await producers.ask('start', { rate: 500 })
 */
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const ANSWER_MAX_MS = 60_000

/** Starts `file` beside this one with `options`; resolves once it is ready. @param execArgv arguments of Node itself */
export async function startChild(file, options, execArgv = []) {
  const stdio = ['ignore', 'inherit', 'inherit', 'ipc']
  const child = fork(fileURLToPath(new URL(file, import.meta.url)), { stdio, execArgv })
  const waiting = new Map()
  let serial = 0
  let ended
  child.on('message', ({ id, value, error }) => {
    const { resolve, reject } = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) resolve(value)
    else reject(new Error(`${file}: ${error}`))
  })
  const exited = new Promise((resolve) => {
    child.once('exit', (code, signal) => {
      ended = new Error(`${file} ended with ${code ?? signal}`)
      for (const { reject } of waiting.values()) reject(ended)
      resolve()
    })
  })
  const ask = (name, args) =>
    new Promise((resolve, reject) => {
      if (ended !== undefined) return reject(ended)
      const id = serial++
      const timer = setTimeout(() => reject(new Error(`${file} did not answer '${name}'`)), ANSWER_MAX_MS)
      const settle = (done) => (value) => {
        clearTimeout(timer)
        done(value)
      }
      waiting.set(id, { resolve: settle(resolve), reject: settle(reject) })
      child.send({ id, name, args })
    })
  const ready = await ask('open', options)
  return {
    ready,
    pid: child.pid,
    ask,
    stop: async () => {
      child.disconnect()
      await exited
    },
  }
}

/** In the child: `open(options)` resolves with the questions it answers and, as `ready`, what its parent wants to know. */
export function serve(open) {
  let answers
  process.on('disconnect', () => process.exit(0))
  const answer = async ({ id, name, args }) => {
    try {
      if (name === 'open') answers = await open(args)
      process.send({ id, value: name === 'open' ? answers.ready : await answers[name](args) })
    } catch (error) {
      process.send({ id, error: error.stack ?? String(error) })
    }
  }
  process.on('message', (question) => void answer(question))
}

/** CPU of this process so far, user and system, in milliseconds. */
export function cpuMs() {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

/** Milliseconds on the clock that all processes of this machine share. */
export function nowMs() {
  return Number(process.hrtime.bigint()) / 1e6
}
