/** A typed emitter: small, the same in Node and browsers, without a fatal `error` event. */

import { suggest, XmqError } from '@xmq/protocol'

/** Takes a listener off again. Idempotent. */
export type Unsubscribe = () => void

/** Listeners by the event's name, as the option `on` takes them. */
export type Listeners<Events extends object> = {
  readonly [Name in keyof Events]?: (event: Events[Name]) => void
}

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

  /**
   * Registers the listeners of an option.
   * @throws XmqError `invalid-config` on a name that is no event, and on what is no function
   */
  onEach(listeners: Listeners<Events> | undefined, names: Readonly<Record<keyof Events, true>>): void {
    for (const name of Object.keys(listeners ?? {}) as (keyof Events & string)[]) {
      const listener: unknown = listeners?.[name]
      if (listener === undefined) continue
      if (!Object.hasOwn(names, name)) {
        throw new XmqError('invalid-config', `on.${name} is no event${suggest(name, Object.keys(names))}`)
      }
      if (typeof listener !== 'function') throw new XmqError('invalid-config', `on.${name} is no function.`)
      this.on(name, listener as (event: Events[typeof name]) => void)
    }
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
