/** SIGTERM and Ctrl-C: the first asks to stop, a later one means at once. */
import { onStopSignal } from '#stop-signal'

/** Ctrl-C under npm or a shell may come twice, from the terminal and from the parent: that is one signal. */
const REPEATED_MS = 500

/**
 * Calls `onStop` on the first SIGTERM or SIGINT, and `onInsist`, with the exit code of such an end, on every one that comes
 * more than half a second later. In browsers nothing ever comes.
 *
 * @returns a function that stops listening
 */
export function listenForStop(onStop: () => void, onInsist: (exitCode: number) => void): () => void {
  let askedAt: number | undefined
  return onStopSignal((exitCode) => {
    if (askedAt === undefined) {
      askedAt = performance.now()
      onStop()
    } else if (performance.now() - askedAt > REPEATED_MS) onInsist(exitCode)
  })
}
