/** An embedded XMPP server and a development broker, for tests and development. Not for production. */
export { startDevBroker, type DevBroker, type DevBrokerOptions } from './dev-broker.ts'
export type { DropManner, StallWhat, StreamCondition } from './connection.ts'
export type { OnServerEvent, ServerEvents } from './events.ts'
export type { Misbehave } from './misbehave.ts'
export type { EmbeddedServerOptions } from './options.ts'
export * from './raw-client.ts'
export * from './raw-stream.ts'
export { startEmbeddedServer, type EmbeddedServer } from './server.ts'
