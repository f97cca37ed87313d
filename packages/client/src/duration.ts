/** Durations as people write them. */
import { XmqError } from '@xmq/protocol'

/** Milliseconds as a number, or a text such as `'500ms'`, `'30s'`, `'10m'`, `'1h'`, `'7d'`. */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`

const UNIT_MS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
])

/**
 * A duration in whole milliseconds.
 *
 * @param name the option, for the message
 * @throws XmqError `invalid-config`
 */
export function parseDuration(duration: Duration, name: string): number {
  if (typeof duration === 'number') {
    if (Number.isFinite(duration) && duration >= 0) return Math.round(duration)
  } else if (typeof duration === 'string') {
    const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/.exec(duration.trim())
    const unit = match === null ? undefined : UNIT_MS.get(match[2] ?? '')
    if (match !== null && unit !== undefined) return Math.round(Number(match[1]) * unit)
  }
  throw new XmqError(
    'invalid-config',
    `${name} is '${String(duration)}'; expected milliseconds as a number, or a text like '500ms', '30s', '10m', '1h'.`,
  )
}
