/** Attributes of `xmq:queue:1`, strictly: what is not in the range is refused by name, never bent into it. */
import { childElements, type XmlElement, type XmlNode } from '../element.ts'
import { XmqError } from '../errors.ts'
import { NS_QUEUE } from '../namespaces.ts'
import { escapeAttr, escapedLength, findIllegalCharacter, utf8Length } from '../writer.ts'
import { formatInstant, parseInstant } from './instant.ts'
import { REASON_LENGTH_MAX } from './limits.ts'

// Not Number(): it would take '', '0x10', '1e3', ' 1' and '+1'.
export const INTEGER: RegExp = /^(?:0|[1-9]\d{0,15})$/
const SECONDS = /^(0|[1-9]\d{0,8})(?:\.(\d{1,3}))?$/
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/

function refuse(name: string, of: string, problem: string): never {
  throw new XmqError('bad-request', `Attribute '${name}' of <${of}> ${problem}.`)
}

/** What of a wrong value is told. */
export function shorten(text: string): string {
  return text.length > 40 ? `${text.slice(0, 40)}…` : text
}

/** @throws XmqError `bad-request` unless `root` is that element of `xmq:queue:1` */
export function assertQueueElement(root: XmlElement, name: string): void {
  if (root.name === name && root.ns === NS_QUEUE) return
  throw new XmqError('bad-request', `Expected <${name} xmlns='${NS_QUEUE}'>, not <${shorten(root.name)}>.`)
}

/** Checks a name: 1 to `bytesMax` bytes of UTF-8, no control characters. */
export function assertText(value: string, name: string, of: string, bytesMax: number): void {
  if (value === '') refuse(name, of, `is empty; expected 1 to ${bytesMax} bytes`)
  // A UTF-16 unit is at most three bytes of UTF-8: most need no exact count.
  if (value.length * 3 > bytesMax && utf8Length(value) > bytesMax) {
    refuse(name, of, `has ${utf8Length(value)} bytes; at most ${bytesMax} are allowed`)
  }
  if (CONTROL.test(value)) refuse(name, of, 'has a control character; use letters, digits, dots, dashes')
}

/** A name that may be absent. @throws XmqError `bad-request` */
export function optionalText(from: XmlElement, name: string, bytesMax: number): string | undefined {
  const value = from.attrs.get(name)
  if (value !== undefined) assertText(value, name, from.name, bytesMax)
  return value
}

/** @throws XmqError `bad-request` */
export function requiredText(from: XmlElement, name: string, bytesMax: number): string {
  const value = optionalText(from, name, bytesMax)
  if (value === undefined) refuse(name, from.name, `is missing; expected 1 to ${bytesMax} bytes`)
  return value
}

/** A whole number in digits, without sign or leading zeros. @throws XmqError `bad-request` */
export function optionalInteger(from: XmlElement, name: string, min: number, max: number): number | undefined {
  const text = from.attrs.get(name)
  if (text === undefined) return undefined
  const value = INTEGER.test(text) ? Number(text) : Number.NaN
  if (value >= min && value <= max) return value
  return refuse(name, from.name, `is '${shorten(text)}'; expected a whole number from ${min} to ${max}`)
}

/** @throws XmqError `bad-request` */
export function requiredInteger(from: XmlElement, name: string, min: number, max: number): number {
  const value = optionalInteger(from, name, min, max)
  return value ?? refuse(name, from.name, `is missing; expected a whole number from ${min} to ${max}`)
}

/** Seconds with at most three decimals, in milliseconds. @throws XmqError `bad-request` */
export function optionalSeconds(from: XmlElement, name: string, msMin: number, msMax: number): number | undefined {
  const text = from.attrs.get(name)
  if (text === undefined) return undefined
  const found = SECONDS.exec(text)
  const ms = found === null ? Number.NaN : Number(found[1]) * 1000 + Number((found[2] ?? '').padEnd(3, '0'))
  if (ms >= msMin && ms <= msMax) return ms
  return refuse(
    name,
    from.name,
    `is '${shorten(text)}'; expected seconds from ${msMin / 1000} to ${msMax / 1000}, with at most three decimals`,
  )
}

/** @throws XmqError `bad-request` */
export function requiredSeconds(from: XmlElement, name: string, msMin: number, msMax: number): number {
  const value = optionalSeconds(from, name, msMin, msMax)
  return value ?? refuse(name, from.name, `is missing; expected seconds from ${msMin / 1000} to ${msMax / 1000}`)
}

/** Milliseconds as seconds with up to three decimals. */
export function formatSeconds(ms: number): string {
  return String(ms / 1000)
}

/** `true`, `1`, `false` or `0`; absent is false. @throws XmqError `bad-request` */
export function optionalBoolean(from: XmlElement, name: string): boolean {
  const text = from.attrs.get(name)
  if (text === undefined || text === 'false' || text === '0') return false
  if (text === 'true' || text === '1') return true
  return refuse(name, from.name, `is '${shorten(text)}'; expected 'true' or 'false'`)
}

/** An instant in wall milliseconds. @throws XmqError `bad-request` */
export function optionalInstant(from: XmlElement, name: string): number | undefined {
  const text = from.attrs.get(name)
  if (text === undefined) return undefined
  const ms = parseInstant(text)
  return ms ?? refuse(name, from.name, `is '${shorten(text)}'; expected an instant such as 2026-01-02T03:04:05.678Z`)
}

/** @throws XmqError `bad-request` */
export function requiredInstant(from: XmlElement, name: string): number {
  const ms = optionalInstant(from, name)
  return ms ?? refuse(name, from.name, 'is missing; expected an instant such as 2026-01-02T03:04:05.678Z')
}

/** One of a closed set. @throws XmqError `bad-request` */
export function optionalWord<Word extends string>(
  from: XmlElement,
  name: string,
  words: readonly Word[],
): Word | undefined {
  const text = from.attrs.get(name)
  if (text === undefined) return undefined
  const found = words.find((word) => word === text)
  return (
    found ?? refuse(name, from.name, `is '${shorten(text)}'; expected ${words.map((word) => `'${word}'`).join(', ')}`)
  )
}

/** @throws XmqError `bad-request` */
export function requiredWord<Word extends string>(from: XmlElement, name: string, words: readonly Word[]): Word {
  const found = optionalWord(from, name, words)
  return found ?? refuse(name, from.name, `is missing; expected ${words.map((word) => `'${word}'`).join(', ')}`)
}

/** @throws XmqError `bad-request` */
export function assertInteger(value: number, name: string, of: string, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return
  refuse(name, of, `is ${value}; expected a whole number from ${min} to ${max}`)
}

/** Checks milliseconds that become seconds on the wire. @throws XmqError `bad-request` */
export function assertMs(value: number, name: string, of: string, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return
  refuse(name, of, `is ${value} ms; expected whole milliseconds from ${min} to ${max}`)
}

/** Checks an instant. @throws XmqError `bad-request` */
export function instantText(ms: number, name: string, of: string): string {
  try {
    return formatInstant(ms)
  } catch (cause) {
    throw new XmqError('bad-request', `${name} of <${of}> is ${ms}; expected wall milliseconds.`, { cause })
  }
}

/** ` name='value'`. @throws XmqError `illegal-character` */
export function writeAttr(name: string, value: string, of: string): string {
  try {
    return ` ${name}='${escapeAttr(value)}'`
  } catch {
    // Again, to name the place: to build its name each time would cost more than the rest.
    return escapeAttr(value, `attribute '${name}' of <${of}>`)
  }
}

/** Bytes of {@link writeAttr}, as `wireLength` counts: for values without tabs and line ends. */
export function attrBytes(name: string, value: string): number {
  return name.length + 4 + escapedLength(value)
}

/** Child elements of `xmq:queue:1` with that name. */
export function queueChildren(parent: XmlElement, name: string): XmlElement[] {
  return childElements(parent).filter((child) => child.name === name && child.ns === NS_QUEUE)
}

/** Whether a child is the payload's: everything that is not of `xmq:queue:1`. */
export function isPayload(child: XmlNode): child is XmlElement {
  return typeof child !== 'string' && child.ns !== NS_QUEUE
}

/** A reason for people: never refused, but cut, and with what XML cannot carry replaced. */
export function sendableReason(text: string): string {
  let reason = text.length > REASON_LENGTH_MAX ? `${text.slice(0, REASON_LENGTH_MAX - 1)}…` : text
  for (let illegal = findIllegalCharacter(reason); illegal !== undefined; illegal = findIllegalCharacter(reason)) {
    reason = `${reason.slice(0, illegal.index)}\ufffd${reason.slice(illegal.index + 1)}`
  }
  return reason
}
