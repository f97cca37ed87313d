/** Payloads between what the application has and what a stanza carries. docs/protocol.md "Payloads", "Sizes". */
import {
  type Call,
  depthOf,
  DEPTH_MAX,
  element,
  encodeCall,
  encodeJson,
  encodeTopic,
  findChild,
  type ItemCodec,
  childElements,
  NS_CLIENT,
  NS_TOPIC,
  type Payload,
  PROGRESS_BYTES_MAX,
  payloadOf,
  stanza,
  wireLength,
  WRITE_STANZA_BYTES_MAX,
  writeElement,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { createOutgoing, type Mode, type OutgoingMessage, type OutgoingParts } from './session/index.ts'
import type { Topic } from './topic.ts'

/** A stanza that may be written, with its size. */
export interface WritableStanza {
  readonly stanza: XmlElement
  /** As {@link wireLength} counts, or an upper bound that is within the limit. */
  readonly bytes: number
  /** Of a request: what is added where the queue is reliable. */
  readonly call?: XmlElement
}

/** What a publish may say beside its payload. */
export type MessageOptions = Pick<OutgoingParts, 'headers' | 'key' | 'priority' | 'delayMs' | 'ttlMs'>

/** Elements around a payload in a batch: the stanza, the batch, the item. */
const ITEM_DEPTH = 3

/**
 * A message, checked in the form that the queue's mode asks for.
 * @param form the mode, where it is known, since the item of a reliable queue is larger and stricter than a plain stanza; and how
 *   a reliable queue takes its items
 * @throws XmqError `bad-request`, `too-large`, `illegal-character`, `unsupported`
 */
export function encodeMessage(
  topic: Topic,
  payload: unknown,
  head: { readonly to: string; readonly id: string } & MessageOptions,
  { mode, codec }: { readonly mode: Mode | undefined; readonly codec: ItemCodec },
): OutgoingMessage {
  const elements = encodePayload(topic, payload, 'payload')
  const { to, id, headers, key, priority, delayMs, ttlMs } = head
  const isText = topic.encoding === 'text'
  const parts = { to, id, topic: topic.name, payload: elements, isText, headers, key, priority, delayMs, ttlMs }
  if (mode === 'plain' || mode === 'mod_xmq') {
    const message = createOutgoing(parts)
    writable(message.stanza(), topic)
    return message
  }
  if (topic.encoding === 'xml') for (const child of elements) assertDepth(ITEM_DEPTH + depthOf(child), topic)
  const message = createOutgoing(parts, mode === 'reliable' ? codec : undefined)
  message.item()
  return message
}

/**
 * The stanza of a request, in the nested form: every server takes it.
 * @param head `call`: what is added where the queue turns out to be reliable
 * @throws as {@link encodeMessage}
 */
export function encodeRequestStanza(
  topic: Topic,
  payload: unknown,
  { to, id, call }: { readonly to: string; readonly id: string; readonly call: Partial<Call> | undefined },
): WritableStanza {
  const xmq = encodeTopic(topic.name, encodePayload(topic, payload, 'payload'))
  const written = writable(stanza('iq', { type: 'get', id, to }, [xmq]), topic)
  return call === undefined ? written : { ...written, call: encodeCall(call) }
}

/** The payload of an answer: at most one element (RFC 6120 8.2.3). @throws as {@link encodeMessage} */
export function encodeAnswer(topic: Topic, answer: unknown): XmlElement | undefined {
  const elements = encodePayload(topic, answer, 'answer')
  if (elements.length > 1) {
    throw new XmqError(
      'bad-request',
      `The answer to '${topic.name}' is ${elements.length} elements; put them into one.`,
    )
  }
  return elements[0]
}

function encodePayload(topic: Topic, payload: unknown, what: 'payload' | 'answer'): readonly XmlElement[] {
  const where = (): string => `The ${what} of '${topic.name}'`
  if (topic.encoding === 'json') {
    const text = jsonOf(payload, where)
    return text === undefined ? [] : [encodeJson(text)]
  }
  if (payload === undefined && what === 'answer') return []
  if (topic.encoding === 'text') {
    if (typeof payload === 'string') return [element('body', NS_CLIENT, undefined, [payload])]
    throw new XmqError(
      'bad-request',
      `${where()} is ${typeNameOf(payload)}; the topic's encoding is 'text': give a string.`,
    )
  }
  const elements = Array.isArray(payload) ? (payload as unknown[]) : [payload]
  if (elements.every(isXmlElement)) return elements
  throw new XmqError(
    'bad-request',
    `${where()} is ${typeNameOf(payload)}; the topic's encoding is 'xml': give elements.`,
  )
}

function jsonOf(value: unknown, where: () => string): string | undefined {
  if (value === undefined) return undefined
  let text: string | undefined
  try {
    // Its type says string; for functions and symbols it is undefined.
    text = JSON.stringify(value)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new XmqError('bad-request', `${where()} has no JSON form: ${reason}`, { cause: error })
  }
  if (text !== undefined) return text
  throw new XmqError('bad-request', `${where()} has no JSON form: it is a ${typeof value}.`)
}

function isXmlElement(value: unknown): value is XmlElement {
  return typeof value === 'object' && value !== null && 'name' in value && 'ns' in value && 'children' in value
}

function typeNameOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  return typeof value === 'object' ? 'an object' : typeof value
}

function assertDepth(depth: number, topic: Topic): void {
  if (depth <= DEPTH_MAX) return
  throw new XmqError('too-large', `A stanza to '${topic.name}' nests ${depth} deep; at most ${DEPTH_MAX} is allowed.`)
}

/**
 * Refuses what a server would close the stream for: depth, size, illegal characters.
 * @throws XmqError `too-large`, `illegal-character`
 */
export function writable(root: XmlElement, topic: Topic): WritableStanza {
  // Only XML of the application's own can nest.
  if (topic.encoding === 'xml') assertDepth(depthOf(root), topic)
  const text = writeElement(root)
  // No UTF-16 unit takes more than six bytes: small stanzas need no exact count.
  const most = text.length * 6
  const bytes = most <= WRITE_STANZA_BYTES_MAX ? most : wireLength(root)
  if (bytes > WRITE_STANZA_BYTES_MAX) {
    throw new XmqError(
      'too-large',
      `A stanza to '${topic.name}' has ${bytes} bytes as servers count them; at most ${WRITE_STANZA_BYTES_MAX} are ` +
        'allowed. Send a reference to the data instead.',
    )
  }
  return { stanza: root, bytes }
}

/**
 * A payload as the topic's encoding has it; a JSON topic accepts a text that parses.
 * @throws XmqError `invalid-payload`
 */
export function decodePayload(topic: Topic, payload: Payload, what: 'payload' | 'answer'): unknown {
  switch (topic.encoding) {
    case 'json':
      if (payload.kind === 'none') return undefined
      if (payload.kind === 'xml') throw wrongKind(topic, what, 'is XML, not JSON')
      try {
        return JSON.parse(payload.text) as unknown
      } catch (error) {
        throw wrongKind(topic, what, 'is no JSON', error)
      }
    case 'text':
      if (payload.kind === 'xml') throw wrongKind(topic, what, 'is XML, not text')
      return payload.kind === 'none' ? '' : payload.text
    default:
      if (payload.kind === 'xml') return payload.elements
      if (payload.kind === 'json') return [encodeJson(payload.text)]
      return payload.kind === 'none' ? [] : [element('body', NS_CLIENT, undefined, [payload.text])]
  }
}

function wrongKind(topic: Topic, what: string, problem: string, cause?: unknown): XmqError {
  return new XmqError('invalid-payload', `The ${what} of '${topic.name}' ${problem}.`, { cause })
}

/**
 * News of a request: a JSON value, whatever the topic's encoding is.
 * @throws XmqError `bad-request` where there is no JSON form, `too-large`, `illegal-character`
 */
export function encodeProgressValue(value: unknown, topic: string): XmlElement {
  const where = `The progress of '${topic}'`
  const text = jsonOf(value, () => where)
  if (text === undefined) throw new XmqError('bad-request', `${where} is ${typeNameOf(value)}, which has no JSON form.`)
  const child = encodeJson(text)
  const bytes = wireLength(child)
  // The element around it counts, too.
  if (bytes <= PROGRESS_BYTES_MAX - 1024) return child
  throw new XmqError('too-large', `${where} has ${bytes} bytes; at most ${PROGRESS_BYTES_MAX - 1024} are allowed.`)
}

/** What news tell; `undefined` of what is no JSON. */
export function decodeProgressValue(payload: Payload): unknown {
  if (payload.kind !== 'json') return undefined
  try {
    return JSON.parse(payload.text) as unknown
  } catch {
    return undefined
  }
}

/** The payload of an IQ result: bare, or inside `<xmq/>`. */
export function answerPayload(iq: XmlElement): Payload {
  return payloadOf(childElements(findChild(iq, 'xmq', NS_TOPIC) ?? iq))
}

/**
 * Checks a value against a schema.
 * @returns what the schema makes of it; a promise only where the schema is asynchronous
 * @throws XmqError `invalid-payload` naming each problem and where it is
 */
export function validate(
  schema: StandardSchemaV1 | undefined,
  value: unknown,
  where: string,
): { value: unknown } | Promise<{ value: unknown }> {
  if (schema === undefined) return { value }
  const result = schema['~standard'].validate(value)
  return result instanceof Promise ? result.then((settled) => accepted(settled, where)) : accepted(result, where)
}

const ISSUES_SHOWN_MAX = 5

function accepted(result: StandardSchemaV1.Result<unknown>, where: string): { value: unknown } {
  if (result.issues === undefined) return { value: result.value }
  const shown = result.issues.slice(0, ISSUES_SHOWN_MAX).map((issue) => {
    const path = (issue.path ?? []).map((part) => String(typeof part === 'object' ? part.key : part)).join('.')
    return path === '' ? issue.message : `${path}: ${issue.message}`
  })
  const more = result.issues.length - shown.length
  const list = shown.join('; ') + (more > 0 ? `; and ${more} more` : '')
  throw new XmqError('invalid-payload', `${where} does not fit the topic's schema: ${list}.`)
}
