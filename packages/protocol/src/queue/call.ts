/**
 * What a request carries beside its payload, and what may pass while it is open. docs/protocol-reliable.md "Requests".
 *
 *     <iq type='get'><xmq xmlns='xmq:topic' topic='T'>PAYLOAD<call xmlns='xmq:queue:1' deadline='ISO' from='..' progress='true'>HEADERS?</call></xmq></iq>
 *     <message type='headline' to='QUEUE'><progress xmlns='xmq:queue:1' call='HOP-ID' n='3'>PAYLOAD</progress></message>
 *     <iq type='set' to='QUEUE'><cancel xmlns='xmq:queue:1' call='REQUEST-ID'/></iq>
 */
import { element, findChild, type XmlElement } from '../element.ts'
import { NS_QUEUE } from '../namespaces.ts'
import { createContent } from './content.ts'
import {
  assertInteger,
  assertQueueElement,
  assertText,
  instantText,
  isPayload,
  optionalBoolean,
  optionalInstant,
  requiredInteger,
  requiredText,
} from './fields.ts'
import { encodeHeaders, type Headers, headersIn, NO_HEADERS } from './headers.ts'
import { ID_BYTES_MAX } from './limits.ts'

/** What stands beside a request's payload. */
export interface Call {
  /** When the requester stops waiting, wall ms. */
  readonly deadline?: number | undefined
  /** The requester's full JID: set by the queue, removed from what a requester writes. */
  readonly from?: string | undefined
  /** Whether the requester wants news while it waits. */
  readonly progress?: boolean | undefined
  readonly headers: Headers
}

/** Writes `<call/>`, to stand inside `<xmq xmlns='xmq:topic'/>`. @throws XmqError */
export function encodeCall(call: Partial<Call>): XmlElement {
  const deadline = call.deadline === undefined ? undefined : instantText(call.deadline, 'deadline', 'call')
  const progress = call.progress === true ? 'true' : undefined
  return element('call', NS_QUEUE, { deadline, from: call.from, progress }, [encodeHeaders(call.headers ?? NO_HEADERS)])
}

/**
 * The `<call/>` inside `<xmq xmlns='xmq:topic'/>`; empty when there is none.
 * @throws XmqError `bad-request`, `too-large` on a broken deadline or headers
 */
export function decodeCall(xmq: XmlElement): Call {
  const call = findChild(xmq, 'call', NS_QUEUE)
  if (call === undefined) return { headers: NO_HEADERS }
  const deadline = optionalInstant(call, 'deadline')
  const from = call.attrs.get('from')
  return {
    ...(deadline === undefined ? {} : { deadline }),
    ...(from === undefined ? {} : { from }),
    ...(optionalBoolean(call, 'progress') ? { progress: true } : {}),
    headers: headersIn(call),
  }
}

/** News of an open request. */
export interface Progress {
  /** The id under which the request was written: the worker's on its hop, the requester's own on the other. */
  readonly call: string
  /** 1, 2, 3 …: the requester drops what comes out of turn. */
  readonly n: number
  readonly payload: readonly XmlElement[]
}

/** Writes `<progress/>`, to stand in a message of type `headline`. @throws XmqError `bad-request` */
export function encodeProgress({ call, n, payload }: Progress): XmlElement {
  assertText(call, 'call', 'progress', ID_BYTES_MAX)
  assertInteger(n, 'n', 'progress', 1, Number.MAX_SAFE_INTEGER)
  return element('progress', NS_QUEUE, { call, n: String(n) }, createContent({ payload }).payload)
}

/** Reads `<progress/>`. @throws XmqError `bad-request` */
export function decodeProgress(progress: XmlElement): Progress {
  assertQueueElement(progress, 'progress')
  return {
    call: requiredText(progress, 'call', ID_BYTES_MAX),
    n: requiredInteger(progress, 'n', 1, Number.MAX_SAFE_INTEGER),
    payload: progress.children.filter(isPayload),
  }
}

/** Writes `<cancel/>`: nobody waits any more for the request with that id. @throws XmqError `bad-request` */
export function encodeCancel(call: string): XmlElement {
  assertText(call, 'call', 'cancel', ID_BYTES_MAX)
  return element('cancel', NS_QUEUE, { call })
}

/** Reads `<cancel/>`. @throws XmqError `bad-request` */
export function decodeCancel(cancel: XmlElement): { readonly call: string } {
  assertQueueElement(cancel, 'cancel')
  return { call: requiredText(cancel, 'call', ID_BYTES_MAX) }
}
