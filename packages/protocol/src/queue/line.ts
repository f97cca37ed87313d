/** Names of lines. */
import type { XmlElement } from '../element.ts'
import { XmqError } from '../errors.ts'
import { optionalText } from './fields.ts'
import { JID_BYTES_MAX, SUBSCRIPTION_NAME_BYTES_MAX } from './limits.ts'

/** A line of waiting: the queue's own, or that of a named durable subscription of an `all` queue. */
export interface LineName {
  /** The subscription's name, and the bare JID that owns it; both or neither. */
  readonly subscription?: string | undefined
  readonly owner?: string | undefined
}

/** @throws XmqError `bad-request` */
export function readLineName(from: XmlElement): LineName {
  const subscription = optionalText(from, 'subscription', SUBSCRIPTION_NAME_BYTES_MAX)
  const owner = optionalText(from, 'owner', JID_BYTES_MAX)
  if ((subscription === undefined) !== (owner === undefined)) {
    throw new XmqError('bad-request', `Attributes 'subscription' and 'owner' of <${from.name}> belong together.`)
  }
  return subscription === undefined ? {} : { subscription, owner }
}
