/** Decoded values as JSON, where content is XML text and errors are their fields; and back. */
import {
  createContent,
  type Envelope,
  type EnvelopeMark,
  type ItemContent,
  parseElement,
  writeElement,
  type XmlElement,
  XmqError,
  type XmqErrorCode,
} from '@xmq/protocol'

/** Anything that JSON has. */
export type Plain = string | number | boolean | null | readonly Plain[] | { readonly [name: string]: Plain }

interface PlainContent {
  readonly payload: readonly string[]
  readonly headers?: Readonly<Record<string, string>>
  readonly envelope?: Omit<Envelope, 'children'> & { readonly children: readonly string[] }
}

interface PlainError {
  readonly code: XmqErrorCode
  readonly message: string
  readonly retryAfterSeconds?: number
}

const text = (one: XmlElement): string => writeElement(one, '')

function plainContent(content: ItemContent): unknown {
  const { payload, headers, envelope } = content
  return {
    payload: payload.map(text),
    ...(headers.size > 0 ? { headers: Object.fromEntries(headers) } : {}),
    ...(envelope === undefined
      ? {}
      : {
          envelope: {
            ...envelope,
            children: envelope.children.map((child) => (typeof child === 'string' ? child : text(child))),
          },
        }),
  }
}

/** A decoded value as JSON has it: `undefined` is absent. */
export function toPlain(value: unknown): Plain {
  const seen = (_: string, each: unknown): unknown => {
    if (each instanceof XmqError) {
      const { code, type, condition, message, retryAfterSeconds } = each
      return { code, type, condition, message, ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }) }
    }
    if (each instanceof Map) return Object.fromEntries(each)
    if (typeof each !== 'object' || each === null) return each
    if ('envelope' in each && 'extras' in each) return plainContent(each as ItemContent)
    if ('attrs' in each && 'ns' in each) return text(each as XmlElement)
    // Of a broken item: what the answer to it will say.
    if ('ok' in each && each.ok === false) {
      const { error, ...rest } = each as unknown as { readonly error: XmqError }
      return { ...rest, code: error.code, message: error.message }
    }
    return each
  }
  return JSON.parse(JSON.stringify(value, seen) ?? 'null') as Plain
}

/** Content from JSON. */
export function fromPlainContent(plain: unknown): ItemContent {
  const { payload, headers, envelope } = plain as PlainContent
  return createContent({
    payload: payload.map((xml) => parseElement(xml, '')),
    headers: headers === undefined ? undefined : new Map(Object.entries(headers)),
    envelope:
      envelope === undefined
        ? undefined
        : {
            ...envelope,
            children: envelope.children.map((child) =>
              child.startsWith('<') ? parseElement(child, '') : (child as EnvelopeMark),
            ),
          },
  })
}

/** An error from JSON. */
export function fromPlainError(plain: unknown): XmqError {
  const { code, message, retryAfterSeconds } = plain as PlainError
  return new XmqError(code, message, retryAfterSeconds === undefined ? {} : { retryAfterSeconds })
}
