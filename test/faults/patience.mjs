/** How long a run waits for what has to come, on a machine that is busy with other things as well. */

/** Milliseconds. What takes longer makes a run that cannot be judged. */
export const PATIENCE_MS = 180_000

/** Something did not come in time: that says nothing about what was promised, good or bad. */
export class TooLate extends Error {}

/** `promise`, or a {@link TooLate} that names `what`. */
export async function inTime(what, promise, patienceMs = PATIENCE_MS) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new TooLate(`${what}: not within ${patienceMs / 1000} s.`)), patienceMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
