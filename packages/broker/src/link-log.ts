/** What a link's status means to people: log lines, and why a broker is not ready. */
import type { LinkStatus } from './component.ts'
import { formatHostPort, type HostPort } from './config-values.ts'
import type { Logger } from './log.ts'

/** In the place of a trouble: there is none. */
const UP = ''

/** Logs what links tell, each trouble once: the same line at every try would bury everything else. */
export class LinkLog {
  readonly #log: Logger
  readonly #server: string
  readonly #lastTrouble = new Map<string, string>()

  constructor(log: Logger, server: HostPort) {
    this.#log = log
    this.#server = formatHostPort(server)
  }

  write(domain: string, status: LinkStatus): void {
    const server = this.#server
    if (status.state === 'up') {
      const isNew = this.#lastTrouble.get(domain) !== UP
      this.#lastTrouble.set(domain, UP)
      if (isNew) this.#log.info('link up', { domain, server })
      if (status.hint !== undefined) this.#log.warn('the server can be set up better', { domain, hint: status.hint })
      return
    }
    if (status.state !== 'down') {
      this.#log.debug(`link ${status.state}`, { domain, server })
      return
    }
    const isNews = this.#lastTrouble.get(domain) !== status.reason.message
    this.#lastTrouble.set(domain, status.reason.message)
    const { reason, hint } = status
    const retryInMs = Math.max(0, Math.round(status.retryAt - Date.now()))
    this.#log[isNews ? 'warn' : 'debug']('link down', {
      domain,
      server,
      code: reason.code,
      text: reason.message,
      hint,
      retryInMs,
    })
  }
}

/** Why a link is not up, and what would mend it. */
export function linkTrouble(status: Exclude<LinkStatus, { readonly state: 'up' }>): {
  readonly why: string
  readonly hint?: string
} {
  if (status.state !== 'down') return { why: `It is ${status.state}.` }
  const { reason, hint } = status
  const why = asSentence(reason.message)
  return hint === undefined ? { why } : { why, hint: asSentence(hint) }
}

function asSentence(text: string): string {
  return /[.!?…]$/.test(text) ? text : `${text}.`
}
