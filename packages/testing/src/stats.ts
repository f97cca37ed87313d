/** What the embedded server counts, and its Prometheus text: `xmq dev` serves it with the broker's. */

/** Counters since the start, and gauges. */
export interface ServerStats {
  readonly sessions: number
  /** Sessions that are not read now, because they are told to wait too often. */
  readonly heldSessions: number
  /** Sessions that were not read for that in the last half minute: their unanswered requests are bounded. */
  readonly watchedSessions: number
  /** Errors of type `wait` that components sent to sessions. */
  readonly toldToWait: number
  /** Those of them after which a session was not read for a while. */
  readonly heedless: number
  /** What waits for the component that has most of it. */
  readonly componentBytes: number
}

/** The stats as Prometheus reads them. */
export function metricsText(stats: ServerStats): string {
  const lines: string[] = []
  const add = (type: 'counter' | 'gauge', name: string, help: string, value: number): void => {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, `${name} ${value}`)
  }
  add('gauge', 'xmq_server_sessions', 'Clients that are logged in', stats.sessions)
  add('gauge', 'xmq_server_held_sessions', 'Of them, not read for a while: they do not heed', stats.heldSessions)
  add('gauge', 'xmq_server_watched_sessions', 'Of them, with a bound on what they ask', stats.watchedSessions)
  add('counter', 'xmq_server_told_to_wait_total', 'Refusals of type wait passed on', stats.toldToWait)
  add('counter', 'xmq_server_heedless_total', 'Refusals of type wait that held a client', stats.heedless)
  add('gauge', 'xmq_server_component_bytes', 'What waits for the component with most of it', stats.componentBytes)
  return `${lines.join('\n')}\n`
}
