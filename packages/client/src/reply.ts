/** Answers to requests. docs/protocol.md "Requests", "Errors". */
import {
  errorTo,
  findIllegalCharacter,
  type Payload,
  resultTo,
  wireLength,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { encodeAnswer, validate, writable } from './payload.ts'
import type { Delivery } from './session/index.ts'
import type { Topic } from './topic.ts'

const TEXT_LENGTH_MAX = 1000

/**
 * What a handler returned, as the answer to its request.
 * @throws XmqError `handler-failed` when it does not fit the topic, `too-large`, `illegal-character`
 */
export async function answerStanza(topic: Topic, delivery: Delivery, answer: unknown): Promise<XmlElement> {
  try {
    await validate(topic.output, answer, `The handler's answer of '${topic.name}'`)
  } catch (error) {
    throw new XmqError('handler-failed', XmqError.from(error).message, { cause: error })
  }
  const child = encodeAnswer(topic, answer)
  return writable(resultTo(delivery.stanza, child === undefined ? [] : [child]), topic).stanza
}

/** Codes of ours that a requester may be told as they are. */
const TOLD: ReadonlySet<string> = new Set(['handler-failed', 'invalid-payload', 'overloaded', 'too-large', 'not-found'])

/**
 * A failure as the answer to its request: the text of the error, never its stack. All but the codes above become
 * `handler-failed`, so that no condition makes the queue ask the next worker.
 */
export function failureStanza(delivery: Delivery, error: XmqError): XmlElement {
  const text = carriable(error.message)
  const retryAfter = error.retryAfterSeconds
  const code = TOLD.has(error.code) ? error.code : 'handler-failed'
  return errorTo(
    delivery.stanza,
    new XmqError(code, text, retryAfter === undefined ? {} : { retryAfterSeconds: retryAfter }),
  )
}

/** What a handler threw. Only what this package found out about the payload keeps its code. */
export function asFailure(thrown: unknown): XmqError {
  if (thrown instanceof XmqError) return thrown
  return XmqError.from(thrown, 'handler-failed')
}

function carriable(text: string): string {
  let legal = text.length > TEXT_LENGTH_MAX ? `${text.slice(0, TEXT_LENGTH_MAX)}…` : text
  // Bounded by the length: each round replaces one character.
  for (let illegal = findIllegalCharacter(legal); illegal !== undefined; illegal = findIllegalCharacter(legal)) {
    legal = `${legal.slice(0, illegal.index)}\ufffd${legal.slice(illegal.index + 1)}`
  }
  return legal
}

/** Roughly how much memory a payload holds, in characters. */
export function sizeOf(payload: Payload): number {
  if (payload.kind === 'json' || payload.kind === 'text') return payload.text.length
  return payload.kind === 'none' ? 0 : payload.elements.reduce((sum, child) => sum + wireLength(child), 0)
}
