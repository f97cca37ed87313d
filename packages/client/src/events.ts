/** A typed emitter: small, the same in Node and browsers, without a fatal `error` event. */

/** Takes a listener off again. Idempotent. */
export type Unsubscribe = () => void

/** Owner: whoever emits. A listener that throws does not stop the others; its error becomes an uncaught one. */
export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<(event: never) => void>>()

  /** Calls `listener` on each event of that name, in the order of registration. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): Unsubscribe {
    const listeners = this.#listeners.get(name) ?? new Set()
    this.#listeners.set(name, listeners)
    // Wrapped, so that the same function registered twice is called twice.
    const entry = (event: Events[Name]): void => listener(event)
    listeners.add(entry)
    return () => void listeners.delete(entry)
  }

  has(name: keyof Events): boolean {
    return (this.#listeners.get(name)?.size ?? 0) > 0
  }

  emit<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    const listeners = this.#listeners.get(name)
    if (listeners === undefined) return
    // A copy: who registers meanwhile hears the next event.
    for (const listener of Array.from(listeners)) {
      try {
        ;(listener as (event: Events[Name]) => void)(event)
      } catch (error) {
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }
}
