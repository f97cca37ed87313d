/** CPU of other processes. */
import { readFileSync } from 'node:fs'

const TICKS_A_SECOND = 100

/** CPU that a process has used, all threads, in milliseconds; 0 for one that is not there. */
export function cpuOf(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1).split(' ')
    return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_A_SECOND
  } catch {
    return 0
  }
}
