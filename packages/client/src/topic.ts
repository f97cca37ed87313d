/** Topics: a name, how payloads travel, and what they look like. */
import { assertTopic, type XmlElement, XmqError } from '@xmq/protocol'
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { assertOptions, type OptionNames } from './known-options.ts'

/**
 * How a payload travels (docs/protocol.md "Payloads").
 *
 * - `json`: any JSON value, as XEP-0335. A text body that parses as JSON is accepted, too.
 * - `text`: a string, as `<body>`.
 * - `xml`: elements of your own.
 */
export type Encoding = 'json' | 'text' | 'xml'

/**
 * A topic, made by {@link defineTopic}.
 *
 * @typeParam Sent what is published or asked
 * @typeParam Received what the handler gets, after the schema's transformations
 * @typeParam Answered what the handler returns
 * @typeParam Returned what the requester gets
 */
export interface Topic<Sent = unknown, Received = unknown, Answered = unknown, Returned = unknown> {
  readonly name: string
  readonly encoding: Encoding
  readonly input: StandardSchemaV1 | undefined
  readonly output: StandardSchemaV1 | undefined
  /** Types only; never there. */
  readonly '~types'?: {
    readonly sent: Sent
    readonly received: Received
    readonly answered: Answered
    readonly returned: Returned
  }
}

/** What goes in where a schema or, without one, an encoding rules. */
export type SentBy<Schema, E extends Encoding> = Schema extends StandardSchemaV1
  ? StandardSchemaV1.InferInput<Schema>
  : E extends 'text'
    ? string
    : E extends 'xml'
      ? XmlElement | readonly XmlElement[]
      : unknown

/** What comes out where a schema or, without one, an encoding rules. */
export type ReceivedBy<Schema, E extends Encoding> = Schema extends StandardSchemaV1
  ? StandardSchemaV1.InferOutput<Schema>
  : E extends 'text'
    ? string
    : E extends 'xml'
      ? readonly XmlElement[]
      : unknown

/** What a handler returns: nothing is an answer, too, unless a schema says otherwise. */
export type AnsweredBy<Schema, E extends Encoding> = Schema extends StandardSchemaV1
  ? StandardSchemaV1.InferInput<Schema>
  : SentBy<Schema, E> | void

/** Options of {@link defineTopic}. */
export interface TopicOptions<Input, Output, E extends Encoding> {
  /** Schema of the payload: any Standard Schema (zod, valibot, arktype). Checked before sending and before the handler. */
  readonly input?: Input
  /** Schema of a request's answer. Checked after the handler and by the requester. */
  readonly output?: Output
  /** @default 'json' */
  readonly encoding?: E
}

const TOPIC_OPTIONS: OptionNames<TopicOptions<unknown, unknown, Encoding>> = {
  input: true,
  output: true,
  encoding: true,
}

/**
 * Defines a topic, to be shared by producers and workers.
 *
 * @param name 1 to 255 bytes, case-sensitive, no control characters; dots split it into segments
 * @throws XmqError `bad-request` on a name that cannot be sent, `invalid-config` on a wrong option
 */
export function defineTopic<
  Input extends StandardSchemaV1 | undefined = undefined,
  Output extends StandardSchemaV1 | undefined = undefined,
  E extends Encoding = 'json',
>(
  name: string,
  options: TopicOptions<Input, Output, E> = {},
): Topic<SentBy<Input, E>, ReceivedBy<Input, E>, AnsweredBy<Output, E>, ReceivedBy<Output, E>> {
  assertTopic(name)
  assertOptions(options, TOPIC_OPTIONS, 'defineTopic()')
  const encoding: string = options.encoding ?? 'json'
  if (encoding !== 'json' && encoding !== 'text' && encoding !== 'xml') {
    throw new XmqError(
      'invalid-config',
      `encoding of topic '${name}' is '${encoding}'; expected 'json', 'text' or 'xml'.`,
    )
  }
  return Object.freeze({ name, encoding, input: options.input, output: options.output })
}

let lastNamed: Topic | undefined

/** A topic by name alone: JSON without a schema. */
export function topicOf(topic: Topic | string): Topic {
  if (typeof topic !== 'string') return topic
  // Most programs name one topic again and again.
  if (lastNamed?.name !== topic) lastNamed = defineTopic(topic)
  return lastNamed
}
