/** What cases look at in a stanza. */
import {
  childElements,
  decodeError,
  findChild,
  findTopic,
  NS_CLIENT,
  parseElement,
  textOf,
  type XmlElement,
  type XmqError,
  writeElement,
} from '@xmq/protocol'
import { expect } from 'vitest'
import type { ServerKind } from '../servers/index.ts'

const NS_ADDRESS = 'http://jabber.org/protocol/address'
const NS_HINTS = 'urn:xmpp:hints'
const NS_CARBONS = 'urn:xmpp:carbons:2'

/** The text of a message's body, or `undefined`. */
export function bodyOf(message: XmlElement): string | undefined {
  const body = findChild(message, 'body', NS_CLIENT)
  return body && textOf(body)
}

/** The topic that a stanza names, or `undefined`. */
export function topicOf(root: XmlElement): string | undefined {
  return findTopic(root)?.attrs.get('topic')
}

/** The producers that a delivery names (XEP-0033 `ofrom`). */
export function producersOf(message: XmlElement): (string | undefined)[] {
  return childElements(message)
    .filter((child) => child.name === 'addresses' && child.ns === NS_ADDRESS)
    .flatMap((addresses) => childElements(addresses))
    .filter((address) => address.attrs.get('type') === 'ofrom')
    .map((address) => address.attrs.get('jid'))
}

/** Expects the hints that keep a delivery out of archives and away from the account's other sessions. */
export function expectHints(message: XmlElement, kind: ServerKind): void {
  expect(findChild(message, 'no-store', NS_HINTS), 'no-store').toBeDefined()
  expect(findChild(message, 'no-copy', NS_HINTS), 'no-copy').toBeDefined()
  // Prosody takes it as said to itself, and out of the message.
  if (kind !== 'prosody') expect(findChild(message, 'private', NS_CARBONS), 'private').toBeDefined()
}

/** Expects an empty or filled result. */
export function expectResult(answer: XmlElement): XmlElement {
  expect(answer.attrs.get('type'), writeElement(answer)).toBe('result')
  return answer
}

/** Expects an error stanza of that condition, and returns what it says. */
export function expectError(answer: XmlElement, condition: string): XmqError {
  expect(answer.attrs.get('type'), writeElement(answer)).toBe('error')
  const error = decodeError(answer)
  expect(error.condition, writeElement(answer)).toBe(condition)
  return error
}

/** An element from text. */
export function xml(text: string): XmlElement {
  return parseElement(text)
}
