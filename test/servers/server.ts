/** One shape for every XMPP server that the suites run on, so that the same cases run on all of them. */

/** Which server. */
export type ServerKind = 'embedded' | 'prosody' | 'ejabberd'

/** In the order in which suites run. */
export const SERVER_KINDS: readonly ServerKind[] = ['embedded', 'prosody', 'ejabberd']

/** What a test may choose about its server. */
export interface TestServerOptions {
  /** Domains that a component may serve; ejabberd and the embedded server let any one connect. */
  readonly componentDomains?: readonly string[]
  /** False lets a component write any `from` (`check_from`, `validate_from_addresses`). @default true */
  readonly checkFrom?: boolean
  /** Accounts to make before the first login, by name. */
  readonly accounts?: Readonly<Record<string, string>>
  /** Threads that run ejabberd's code. @default 1: suites run beside each other */
  readonly schedulers?: number
  /** Bytes a second that are read of each client (ejabberd and Prosody: whose name begins with `producer`). @default no shaper */
  readonly producerBytes?: number
}

/** A server of its own on 127.0.0.1: its folder, its ports, its process. No TLS, no server-to-server. */
export interface TestServer {
  readonly kind: ServerKind
  /** Of its process; `undefined` while there is none of its own. */
  readonly pid: number | undefined
  readonly host: string
  readonly c2sPort: number
  readonly componentPort: number
  readonly websocketUrl: string
  /** `xmpp://127.0.0.1:PORT`, as the SDK's `service` takes it. */
  readonly service: string
  /** The secret of every component. */
  readonly secret: string
  /** Where accounts live. */
  readonly domain: string
  /** Where SASL ANONYMOUS is offered. */
  readonly anonymousDomain: string
  /** Makes an account; nothing changes when it is there with that password. */
  register(user: string, password: string): Promise<void>
  /** Ends it as a crash does, its connections with it. */
  kill(): Promise<void>
  /** Signals its process: SIGSTOP, SIGCONT. @throws where it has none of its own */
  signal(name: NodeJS.Signals): void
  /** Ends it in good order. Accounts stay. */
  stop(): Promise<void>
  /** Starts it again on the same ports; resolves once it serves. */
  start(): Promise<void>
  /** {@link stop} and {@link start}. */
  restart(): Promise<void>
  /** The end of its log, for a failed test's report. */
  logTail(): Promise<string>
  /** Stops it for good and removes its folder. */
  dispose(): Promise<void>
}

/** The domains that suites use where a test names none. */
export const COMPONENT_DOMAINS: readonly string[] = ['queue1.localhost', 'queue2.localhost', 'xmq.localhost']

/** How long a start may take, many times what it does take. */
const START_TIMEOUT_MS = 60_000

/** Asks again every 50 ms until `ask` says yes. @throws with `what` after {@link START_TIMEOUT_MS} */
export async function waitUntil(what: string, ask: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + START_TIMEOUT_MS
  while (!(await ask())) {
    if (performance.now() > end) throw new Error(`${what} did not happen within ${START_TIMEOUT_MS / 1000} s.`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
