/** What the load of a broker may be: docs/operating.md "Overload". */

/** Bounds of the load above which new work is refused, until all is below half of them again. Milliseconds. */
export interface OverloadRules {
  /** How late the event loop is, on average. @default 2000 */
  readonly loopDelayMsMax: number
  /** How long a stanza waits between the server and us while the process is busy. @default 5000 */
  readonly inputDelayMsMax: number
  /** How long a message that comes now will wait for the store's answer. @default 2000 */
  readonly commitMsMax: number
}

/** What the runtime measures of its own load. */
export interface Load {
  readonly loopDelayMs: number
  readonly inputDelayMs: number
  readonly commitMs: number
}

/** Where the configuration says nothing. */
export const OVERLOAD_DEFAULTS: OverloadRules = Object.freeze({
  loopDelayMsMax: 2000,
  inputDelayMsMax: 5000,
  commitMsMax: 2000,
})
