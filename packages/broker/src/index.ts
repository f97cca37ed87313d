/** The XMQ broker: an XMPP component (XEP-0114) that serves queues. */
export type {
  Broker,
  BrokerEvents,
  BrokerOptions,
  BrokerParts,
  BrokerState,
  BrokerStatus,
} from './broker.ts'
export {
  createComponentLink,
  type ComponentLink,
  type ComponentLinkHandlers,
  type ComponentLinkOptions,
  type LinkCounters,
  type LinkInstance,
  type LinkStatus,
} from './component.ts'
export {
  COMPONENT_PORT_DEFAULT,
  configProblemsOf,
  describeConfig,
  domainsOf,
  parseConfig,
  type BrokerConfig,
  type BrokerLimits,
  type ConfigProblem,
  type ConfigOverride,
  type HostPort,
  type ParseConfigOptions,
} from './config.ts'
export { createCore, RELIABLE_DEFAULTS } from './core/index.ts'
export type {
  AccessList,
  Core,
  CoreEvent,
  CoreRules,
  CoreStats,
  Effect,
  Entropy,
  Input,
  LeaseEnd,
  QueueRules,
  QueueType,
  ReliableRules,
  SubscriptionEnd,
  WhenFull,
  WhenNobody,
} from './core/port.ts'
export {
  createLogger,
  LOG_FORMATS,
  LOG_LEVELS,
  silentLogger,
  type LogFields,
  type LogFormat,
  type Logger,
  type LoggerOptions,
  type LogLevel,
} from './log.ts'
export { createBroker } from './runtime.ts'
export { VERSION } from './runtime-world.ts'
export { createMemoryStore } from './store/memory.ts'
export { openStore } from './store/open.ts'
export { createSqliteStore, type SqliteStore, type SqliteStoreOptions } from './store/sqlite/store.ts'
export * from './store/port.ts'
