/** SIGTERM and Ctrl-C: the first asks to stop, a later one means at once. */

/** What a shell adds to a signal's number. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const
/** Ctrl-C under npm may come twice, from the terminal and from npm: that is one signal. */
const REPEATED_MS = 500

type Signal = keyof typeof EXIT_CODES
const SIGNALS: readonly Signal[] = ['SIGINT', 'SIGTERM']

/**
 * Calls `onStop` on the first signal and `onInsist`, with the exit code of such an end, on every later one.
 *
 * @returns a function that stops listening
 */
export function listenForStop(onStop: () => void, onInsist: (exitCode: number) => void): () => void {
  let askedAt: number | undefined
  const onSignal = (signal: Signal): void => {
    if (askedAt === undefined) {
      askedAt = performance.now()
      onStop()
    } else if (performance.now() - askedAt > REPEATED_MS) onInsist(EXIT_CODES[signal])
  }
  for (const signal of SIGNALS) process.on(signal, onSignal)
  return () => {
    for (const signal of SIGNALS) process.off(signal, onSignal)
  }
}
