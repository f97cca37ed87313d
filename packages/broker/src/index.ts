/** The XMQ broker: an XMPP component (XEP-0114) that serves queues. */
export {
  COMPONENT_PORT_DEFAULT,
  describeConfig,
  domainsOf,
  parseConfig,
  type BrokerConfig,
  type BrokerLimits,
  type ConfigOverride,
  type HostPort,
  type ParseConfigOptions,
} from './config.ts'
export type {
  AccessList,
  CoreEvent,
  CoreStats,
  QueueRules,
  QueueType,
  SubscriptionEnd,
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
export type { Durability, Store, StoreCaps, StoreConfig, StoreStats } from './store/port.ts'
