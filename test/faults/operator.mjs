/** What an operator sees of a store in trouble: `/readyz`, the log, the metrics. */
import { setTimeout as pause } from 'node:timers/promises'
import { PATIENCE_MS, TooLate } from './patience.mjs'

const POLL_MS = 25
const TROUBLE = /"the store does not answer/
const MENDED = /"the store answers again/

/** Asks until it is true. @throws TooLate naming `what`, with the last answer */
async function until(what, ask) {
  const end = performance.now() + PATIENCE_MS
  for (;;) {
    const answer = await ask()
    if (answer.isTrue) return answer
    if (performance.now() > end)
      throw new TooLate(`${what}: not within ${PATIENCE_MS / 1000} s: ${JSON.stringify(answer)}`)
    await pause(POLL_MS)
  }
}

/** Waits until the broker says that its store is in trouble, for that reason, to whoever asks, and in its log. */
export async function seesTrouble(broker, reason) {
  await until('/readyz naming the store', async () => {
    const readiness = await broker.readiness()
    const problem = readiness?.problems?.find(({ what }) => what === 'store')
    return { isTrue: problem !== undefined && reason.test(problem.why), readiness }
  })
  await until('the log naming the store', async () => {
    const line = broker.lines.findLast((text) => TROUBLE.test(text))
    return { isTrue: line !== undefined && reason.test(line), line }
  })
  const failures = await broker.metric('xmq_store_failures_total')
  if (!(failures > 0)) throw new Error(`xmq_store_failures_total is ${failures} while the store is in trouble.`)
}

/** Waits until the broker is ready again, and says so. */
export async function seesRecovery(broker) {
  await until('/readyz after the trouble', async () => {
    const readiness = await broker.readiness()
    return { isTrue: readiness?.ready === true, readiness }
  })
  await until('the log after the trouble', async () => {
    const last = broker.lines.findLast((text) => TROUBLE.test(text) || MENDED.test(text))
    return { isTrue: last === undefined || MENDED.test(last), last }
  })
}

/** @throws when the log tells of the store's trouble more than so often: it would fill the disk that is full */
export function checkNoFlood(broker, times) {
  const told = broker.lines.filter((text) => TROUBLE.test(text)).length
  if (told > times)
    throw new Error(`The log tells ${told} times that the store does not answer; ${times} were expected.`)
}
