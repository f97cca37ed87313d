/** The XMQ SDK: typed topics, publish, request and workers over any XMPP server. */
export { type Client, type ClientEvents, connect, type ConnectOptions } from './client.ts'
export type { RequestOptions } from './client.ts'
export type { ConnectionEvents } from './connection-events.ts'
export type { Handler, HandlerContext, Middleware } from './context.ts'
export {
  type AskOptions,
  type DeadLetter,
  type DeadLetterLine,
  type DeadLetterQuery,
  type DeadLetterResult,
  DeadLetters,
  type DeadLetterSelection,
} from './dead-letters.ts'
export { type Duration, parseDuration } from './duration.ts'
export type { Listeners, Unsubscribe } from './events.ts'
export { EXIT_CODES, type ExitCode, exitCodeOf } from './exit-codes.ts'
export { createMessageId } from './message-id.ts'
export type { ConnectionOptions } from './options.ts'
export type { Published, PublishItem, PublishOptions, PublishOutcome } from './publisher.ts'
export type { ConnectionStatus, Mode } from './session/index.ts'
export { listenForStop } from './signals.ts'
export {
  type AnsweredBy,
  defineTopic,
  type Encoding,
  type ReceivedBy,
  type SentBy,
  type Topic,
  type TopicOptions,
} from './topic.ts'
export type { TlsPolicy } from './transport.ts'
export { Reject, RetryAfter } from './verdict.ts'
export { type HandleOptions, Worker, type WorkerOptions } from './worker.ts'
export type { DeliveryEvent, WorkerEvents } from './worker-events.ts'
export { element, type Payload, type XmlElement, XmqError, type XmqErrorCode } from '@xmq/protocol'
