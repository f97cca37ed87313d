/**
 * `xmq:command`: subscribing to a topic and leaving it. docs/protocol.md "Subscriptions".
 *
 *     <iq type='set' to='QUEUE'><xmq xmlns='xmq:command' command='sub' topic='T' ttl='60' load='1'/></iq>
 *     <iq type='set' to='QUEUE'><xmq xmlns='xmq:command' command='del' topic='T'/></iq>
 */
import { element, type XmlElement, type XmlNode } from './element.ts'
import { XmqError } from './errors.ts'
import { TTL_SECONDS_MAX } from './limits.ts'
import { NS_COMMAND } from './namespaces.ts'
import { assertTopic } from './topic.ts'

/** Subscribe, or renew with a new ttl and load. */
export interface SubCommand {
  readonly command: 'sub'
  readonly topic: string
  /** Lifetime in whole seconds. 0 ends with the current second, negative has ended: both as in mod_xmq. */
  readonly ttlSeconds: number
  /** 0 (idle) to 100 (full); above 90 nothing is delivered. */
  readonly load: number
}

/** Leave a topic. */
export interface DelCommand {
  readonly command: 'del'
  readonly topic: string
}

/** What an `xmq:command` element says. */
export type XmqCommand = SubCommand | DelCommand

/**
 * Writes a command. Attributes come in mod_xmq's order and nothing is added, so that a real mod_xmq accepts it.
 *
 * @param additions children for a broker that speaks more than mod_xmq (`<consume/>`)
 * @throws XmqError `bad-request` on a topic, ttl or load that cannot be sent
 */
export function encodeCommand(command: XmqCommand, additions: readonly XmlNode[] = []): XmlElement {
  assertTopic(command.topic)
  if (command.command === 'del') {
    return element('xmq', NS_COMMAND, { command: 'del', topic: command.topic }, additions)
  }
  assertInteger(command.ttlSeconds, 'ttl', -TTL_SECONDS_MAX, TTL_SECONDS_MAX)
  assertInteger(command.load, 'load', 0, 100)
  const { topic, ttlSeconds, load } = command
  return element('xmq', NS_COMMAND, { command: 'sub', topic, ttl: String(ttlSeconds), load: String(load) }, additions)
}

/**
 * Reads an `xmq:command` element: attributes in any order, further attributes and children ignored.
 * @throws XmqError `bad-request` naming the attribute that is wrong
 */
export function decodeCommand(xmq: XmlElement): XmqCommand {
  if (xmq.name !== 'xmq' || xmq.ns !== NS_COMMAND) {
    throw new XmqError('bad-request', `<${xmq.name}> is no command; expected <xmq xmlns='${NS_COMMAND}'>.`)
  }
  const command = xmq.attrs.get('command')
  if (command === undefined)
    throw new XmqError('bad-request', "Attribute 'command' is missing; expected 'sub' or 'del'.")
  if (command !== 'sub' && command !== 'del') {
    throw new XmqError('bad-request', `Attribute 'command' is '${shorten(command)}'; expected 'sub' or 'del'.`)
  }
  const topic = xmq.attrs.get('topic')
  if (topic === undefined) throw new XmqError('bad-request', "Attribute 'topic' is missing.")
  assertTopic(topic)
  if (command === 'del') return { command, topic }
  return {
    command,
    topic,
    ttlSeconds: integerAttribute(xmq, 'ttl', -TTL_SECONDS_MAX, TTL_SECONDS_MAX),
    load: integerAttribute(xmq, 'load', 0, 100),
  }
}

function integerAttribute(from: XmlElement, name: string, min: number, max: number): number {
  const text = from.attrs.get(name)
  if (text === undefined)
    throw new XmqError('bad-request', `Attribute '${name}' is missing; ${integerRange(min, max)}.`)
  // Not Number(): it would take '', '0x10' and '1e3'.
  const value = /^[+-]?\d{1,15}$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= min && value <= max)) {
    throw new XmqError('bad-request', `Attribute '${name}' is '${shorten(text)}'; ${integerRange(min, max)}.`)
  }
  return value
}

function assertInteger(value: number, name: string, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return
  throw new XmqError('bad-request', `${name} is ${value}; ${integerRange(min, max)}.`)
}

function integerRange(min: number, max: number): string {
  return `expected a whole number from ${min} to ${max}`
}

function shorten(text: string): string {
  return text.length > 40 ? `${text.slice(0, 40)}…` : text
}
