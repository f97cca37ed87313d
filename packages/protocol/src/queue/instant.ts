/** Instants on the wire: XEP-0082 date and time (version 1.1), to the millisecond, always written in UTC. Without `Date`. */

const DAY_MS = 86_400_000
const INSTANT = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))$/
/** 0000-01-01 and 9999-12-31: years of four digits. */
const MS_MIN = -62_167_219_200_000
const MS_MAX = 253_402_300_799_999

/** The day that was written last: messages of a batch share it. */
let lastDay = Number.NaN
let lastDate = ''
/** The instant that was written, and the one that was read last: those of a batch are often the same. */
let lastWritten = { ms: Number.NaN, text: '' }
let lastRead: { readonly text: string; readonly ms: number | undefined } = { text: '', ms: undefined }

/**
 * Writes wall milliseconds: `2026-01-02T03:04:05.678Z`.
 * @throws RangeError when it is no whole number of milliseconds in a year of four digits
 */
export function formatInstant(ms: number): string {
  if (ms !== lastWritten.ms) lastWritten = { ms, text: textOfInstant(ms) }
  return lastWritten.text
}

function textOfInstant(ms: number): string {
  if (!(Number.isInteger(ms) && ms >= MS_MIN && ms <= MS_MAX)) throw new RangeError(`${ms} ms is no instant`)
  const day = Math.floor(ms / DAY_MS)
  if (day !== lastDay) {
    lastDate = dateOf(day)
    lastDay = day
  }
  const rest = ms - day * DAY_MS
  const hours = Math.floor(rest / 3_600_000)
  const minutes = Math.floor(rest / 60_000) % 60
  const seconds = Math.floor(rest / 1000) % 60
  const millis = rest % 1000
  const fraction = millis < 10 ? `00${millis}` : millis < 100 ? `0${millis}` : String(millis)
  return `${lastDate}T${two(hours)}:${two(minutes)}:${two(seconds)}.${fraction}Z`
}

function two(value: number): string {
  return value < 10 ? `0${value}` : String(value)
}

/** Days since 1970 to a date: Hinnant's civil_from_days, in eras of 400 years that begin on 1 March. */
function dateOf(day: number): string {
  const shifted = day + 719_468
  const era = Math.floor(shifted / 146_097)
  const dayOfEra = shifted - era * 146_097
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365,
  )
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const marchMonth = Math.floor((5 * dayOfYear + 2) / 153)
  const date = dayOfYear - Math.floor((153 * marchMonth + 2) / 5) + 1
  const month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  return `${String(year).padStart(4, '0')}-${two(month)}-${two(date)}`
}

function dayOf(year: number, month: number, date: number): number {
  const shifted = month <= 2 ? year - 1 : year
  const era = Math.floor(shifted / 400)
  const yearOfEra = shifted - era * 400
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + date - 1
  return era * 146_097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear - 719_468
}

/** Wall milliseconds of an instant in any time zone, what is finer cut off; `undefined` when it is none. */
export function parseInstant(text: string): number | undefined {
  if (text !== lastRead.text) lastRead = { text, ms: readInstant(text) }
  return lastRead.ms
}

function readInstant(text: string): number | undefined {
  const found = text.length <= 40 ? INSTANT.exec(text) : null
  if (found === null) return undefined
  const part = (index: number): number => Number(found[index] ?? 0)
  const [year, month, date, hours, minutes, seconds] = [part(1), part(2), part(3), part(4), part(5), part(6)]
  const offsetHours = part(9)
  const offsetMinutes = part(10)
  if (month < 1 || month > 12 || date < 1 || hours > 23 || minutes > 59 || seconds > 59) return undefined
  if (offsetHours > 14 || offsetMinutes > 59) return undefined
  const day = dayOf(year, month, date)
  // 31 April is not 1 May.
  if (dayOf(month === 12 ? year + 1 : year, month === 12 ? 1 : month + 1, 1) <= day) return undefined
  const millis = Number(`${found[7] ?? ''}000`.slice(0, 3))
  const offset = (offsetHours * 60 + offsetMinutes) * (found[8] === '-' ? -60_000 : 60_000)
  const ms = day * DAY_MS + hours * 3_600_000 + minutes * 60_000 + seconds * 1000 + millis - offset
  return ms >= MS_MIN && ms <= MS_MAX ? ms : undefined
}
