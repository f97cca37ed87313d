/** Ids of messages. Owner: this module, one row of ids for all clients of a program. */
import { randomId } from './random-id.ts'

/** Where the last 8 digits may begin to count; small integers are quick to write. */
const FIRST_MIN = 0x1000_0000
const FIRST_MAX = 0x4fff_ffff
const LAST = 0x7fff_ffff

let lastMs = -1
let head = ''
let number = 0

/**
 * A new id for a message, as `publish` makes one where none is given: random, and beginning with the time, as a UUID of version 7
 * (RFC 9562 6.2, method 2: within a millisecond they count up from a random number). A store keeps ids that ascend side by side,
 * and writes many of them in one page.
 */
export function createMessageId(): string {
  const now = Date.now()
  if (now !== lastMs || number === LAST) {
    lastMs = now
    const time = now.toString(16).padStart(12, '0')
    const random = randomId()
    head = `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(15, 28)}`
    number = FIRST_MIN + (Number.parseInt(random.slice(28), 16) % (FIRST_MAX - FIRST_MIN))
  }
  number++
  return head + number.toString(16)
}
