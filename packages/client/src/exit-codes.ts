/** How a command ends, for whoever runs it from a script or a service manager: one scheme for all of XMQ's commands. */
import type { XmqError, XmqErrorCode } from '@xmq/protocol'

/** The exit codes of `xmq` and `xmq-worker`. docs/operating.md "Exit codes" explains them. */
export const EXIT_CODES = {
  ok: 0,
  failure: 1,
  /** Wrong arguments or configuration: the same call fails again. */
  usage: 2,
  noRecipients: 3,
  timeout: 4,
  notAuthorized: 5,
  noConnection: 6,
  /** Another process has the queue domain, the store or the port; another message the id. */
  conflict: 7,
} as const

/** One of {@link EXIT_CODES}. */
export type ExitCode = (typeof EXIT_CODES)[keyof typeof EXIT_CODES]

const CODES: Partial<Record<XmqErrorCode, ExitCode>> = {
  'bad-request': EXIT_CODES.usage,
  'invalid-config': EXIT_CODES.usage,
  'illegal-character': EXIT_CODES.usage,
  'no-recipients': EXIT_CODES.noRecipients,
  timeout: EXIT_CODES.timeout,
  'not-authorized': EXIT_CODES.notAuthorized,
  forbidden: EXIT_CODES.notAuthorized,
  'connection-lost': EXIT_CODES.noConnection,
  conflict: EXIT_CODES.conflict,
}

/** The exit code of a process that an error ended. */
export function exitCodeOf(error: XmqError): ExitCode {
  // The server is there, and says that the queue's broker is not.
  if (error.code === 'server' && error.condition.startsWith('remote-server-')) return EXIT_CODES.noConnection
  return CODES[error.code] ?? EXIT_CODES.failure
}
