/**
 * What waits on a caller's signal. Owner: all of this process.
 *
 * Invariants:
 * 1. A signal has one listener of ours, however many publishes wait on it: Node warns of a leak at the eleventh on one signal.
 * 2. It has none while nothing waits.
 */
const waiting = new WeakMap<AbortSignal, Listeners>()

interface Listeners {
  readonly all: Set<() => void>
  readonly stop: () => void
}

/** Calls back once when a signal fires that has not fired yet. Returns how to stop that. */
export function onAbort(signal: AbortSignal, listener: () => void): () => void {
  const listeners = waiting.get(signal) ?? listenTo(signal)
  listeners.all.add(listener)
  return () => {
    listeners.all.delete(listener)
    if (listeners.all.size > 0) return
    listeners.stop()
    if (waiting.get(signal) === listeners) waiting.delete(signal)
  }
}

function listenTo(signal: AbortSignal): Listeners {
  const all = new Set<() => void>()
  const fire = (): void => {
    // One that is called may stop others: those are not called any more.
    for (const listener of all) listener()
  }
  signal.addEventListener('abort', fire, { once: true })
  const listeners = { all, stop: () => signal.removeEventListener('abort', fire) }
  waiting.set(signal, listeners)
  return listeners
}
