/** What is refused in more than one place, in the same words. */
import { bareOf, domainOf, XmqError } from '@xmq/protocol'
import type { Queue } from './records.ts'

/** There is no such queue. */
export function noQueue(address: string): XmqError {
  return new XmqError(
    'not-found',
    `There is no queue ${address}. Ask disco#items of ${domainOf(address)} for those there are.`,
  )
}

/** The sender has no right to do this. */
export function forbidden(sender: string, what: string, queue: Queue): XmqError {
  return new XmqError('forbidden', `${bareOf(sender)} may not ${what} ${queue.address}. Its operator can allow it.`)
}

/** What the parts throw is an `XmqError` that is the sender's to hear; anything else is a bug, and says so. */
export function expected(error: unknown): XmqError {
  if (error instanceof XmqError) return error
  throw error
}
