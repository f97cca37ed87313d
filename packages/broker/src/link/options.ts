/** The options of a component link, and their validation into a frozen whole. */
import { XmqError, parseJid } from '@xmq/protocol'
import { systemClock, type LinkClock } from './clock.ts'

/** One run of a broker, as the watchdog tells it from others. */
export interface LinkInstance {
  /** A nonce, new with every start of the process. */
  readonly id: string
  /** Wall milliseconds of the start. Of two brokers on one domain, the later one gives up. */
  readonly startedAt: number
}

/** Options of {@link createComponentLink}. */
export interface ComponentLinkOptions {
  /** Where the server listens for components: a host name or address. */
  readonly host: string
  readonly port: number
  /** The queue domain that the link serves, e.g. `queue1.localhost`. */
  readonly domain: string
  /** The secret that the server has for that domain. */
  readonly secret: string
  /** One per process, shared by all its links. */
  readonly instance: LinkInstance
  /** Ceiling of the first pause between two tries, in milliseconds. @default 250 */
  readonly backoffMinMs?: number
  /** Ceiling of every later pause, in milliseconds. @default 30_000 */
  readonly backoffMaxMs?: number
  /** Pause after a failure that only a person can mend (wrong secret, unknown domain), in milliseconds. @default 60_000 */
  readonly longPauseMs?: number
  /** A connection that was up for so long starts the backoff anew, in milliseconds. @default 10_000 */
  readonly stableAfterMs?: number
  /** Longest wait for the TCP connection, in milliseconds. @default 10_000 */
  readonly connectTimeoutMs?: number
  /** Longest wait for the stream header and the handshake together, in milliseconds. @default 10_000 */
  readonly handshakeTimeoutMs?: number
  /** Longest time that `close()` drains and waits for the server's end, in milliseconds. @default 5_000 */
  readonly closeTimeoutMs?: number
  /** While the very first connect meets `conflict` for longer, the link gives up, in milliseconds. @default 30_000 */
  readonly conflictPatienceMs?: number
  /** Between two pings of the own address, in milliseconds. @default 15_000 */
  readonly watchdogIntervalMs?: number
  /** A ping that did not come back for so long ends the stream, in milliseconds. @default 10_000 */
  readonly watchdogTimeoutMs?: number
  /** Above so many outbound bytes the link is `congested`; below half it is not any more. @default 8 MiB */
  readonly congestedBytes?: number
  /** Above so many outbound bytes the stream is closed and reopened. @default 64 MiB */
  readonly outboundBytesMax?: number
  /** Largest stanza that `send` writes, in bytes. One byte over the server's own limit closes the stream. @default 512 KiB */
  readonly stanzaBytesMax?: number
  /** @default the machine's clock */
  readonly clock?: LinkClock
  /** Random numbers in [0, 1) for jitter. @default Math.random */
  readonly random?: () => number
}

/** The options with every default filled in. */
export type LinkRules = Required<ComponentLinkOptions>

const MIB = 1024 * 1024

const DEFAULTS = {
  backoffMinMs: 250,
  backoffMaxMs: 30_000,
  longPauseMs: 60_000,
  stableAfterMs: 10_000,
  connectTimeoutMs: 10_000,
  handshakeTimeoutMs: 10_000,
  closeTimeoutMs: 5_000,
  conflictPatienceMs: 30_000,
  watchdogIntervalMs: 15_000,
  watchdogTimeoutMs: 10_000,
  congestedBytes: 8 * MIB,
  outboundBytesMax: 64 * MIB,
  // Prosody's component_stanza_size_limit when it is not set.
  stanzaBytesMax: MIB / 2,
} as const

/** The longest that Node's timers can wait; beyond it they fire at once. */
const TIMER_MS_MAX = 2 ** 31 - 1

/** Fills in the defaults and checks every option. @throws XmqError `invalid-config` naming the option */
export function linkRules(options: ComponentLinkOptions): LinkRules {
  const numbers: Record<keyof typeof DEFAULTS, number> = { ...DEFAULTS }
  for (const name of Object.keys(DEFAULTS) as (keyof typeof DEFAULTS)[]) {
    numbers[name] = positive(name, options[name] ?? DEFAULTS[name])
  }
  if (numbers.backoffMaxMs < numbers.backoffMinMs) wrong('backoffMaxMs', 'is below backoffMinMs')
  if (numbers.outboundBytesMax < numbers.congestedBytes) wrong('outboundBytesMax', 'is below congestedBytes')
  if (options.host === '') wrong('host', 'is empty: name the machine that the XMPP server runs on')
  if (!Number.isInteger(options.port) || options.port < 1 || options.port > 65_535) {
    wrong('port', `is ${options.port}: give a port from 1 to 65535 (component ports are usually 5347)`)
  }
  if (options.secret === '') wrong('secret', 'is empty: give the secret that the server has for this domain')
  return Object.freeze({
    ...numbers,
    host: options.host,
    port: options.port,
    domain: domainName(options.domain),
    secret: options.secret,
    instance: Object.freeze({ ...options.instance }),
    clock: options.clock ?? systemClock,
    random: options.random ?? Math.random,
  })
}

function domainName(domain: string): string {
  const jid = parseJid(domain)
  if (jid.local !== '' || jid.resource !== '') wrong('domain', `is '${domain}': give a domain without '@' and '/'`)
  return jid.domain
}

function positive(name: string, value: number): number {
  if (!Number.isInteger(value) || value < 1 || value > TIMER_MS_MAX) {
    wrong(name, `is ${value}: give a whole number from 1 to ${TIMER_MS_MAX}`)
  }
  return value
}

function wrong(name: string, problem: string): never {
  throw new XmqError('invalid-config', `The option '${name}' of the component link ${problem}.`)
}
