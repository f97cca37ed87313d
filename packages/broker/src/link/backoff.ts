/** How long a link waits before its next try. Pure: randomness comes in. */

/** Bounds of the pause between two tries, in milliseconds. */
export interface BackoffRules {
  readonly backoffMinMs: number
  readonly backoffMaxMs: number
  readonly longPauseMs: number
}

/**
 * Exponential backoff with full jitter: somewhere between 0 and `min(backoffMaxMs, backoffMinMs * 2^failures)`. Brokers
 * that lost their server together so come back spread out.
 *
 * @param failures tries that failed before this pause, less one: 0 for the first pause
 * @param unit a random number in [0, 1)
 */
export function backoffDelay(failures: number, rules: BackoffRules, unit: number): number {
  // 2^30 is beyond every maximum; without the bound the power overflows to Infinity after days of failures.
  const ceiling = Math.min(rules.backoffMaxMs, rules.backoffMinMs * 2 ** Math.min(failures, 30))
  return Math.round(ceiling * unit)
}

/** The pause after a failure that only a person can mend: between half of `longPauseMs` and all of it. */
export function longDelay(rules: BackoffRules, unit: number): number {
  return Math.round(rules.longPauseMs * (0.5 + unit / 2))
}
