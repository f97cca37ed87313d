/** What the embedded server tells about itself: typed events, so that tests wait for what happened and never sleep. */
import type { XmlElement } from '@xmq/protocol'

/** Events of the embedded server, by name. */
export interface ServerEvents {
  /** A client has bound its resource. */
  session: { readonly jid: string }
  /** A client's session is over: its `unavailable` is due. */
  'session-end': { readonly jid: string; readonly reason: 'closed' | 'lost' | 'replaced' }
  /** A component has shaken hands. */
  component: { readonly domain: string }
  /** A component's stream is over. */
  'component-end': { readonly domain: string }
  /** A stanza is about to be routed: `from` stamped, `to` as the sender wrote it. */
  stanza: { readonly stanza: XmlElement }
}

/** Listens to one kind of event; returns the way to stop. */
export type OnServerEvent = <Name extends keyof ServerEvents>(
  name: Name,
  listener: (event: ServerEvents[Name]) => void,
) => () => void

/** The listeners of one server. A listener that throws is the tests' own fault: it propagates. */
export class EventHub {
  readonly #listeners = new Map<keyof ServerEvents, Set<(event: never) => void>>()

  readonly on: OnServerEvent = (name, listener) => {
    const all = this.#listeners.get(name) ?? new Set()
    this.#listeners.set(name, all)
    all.add(listener)
    return () => all.delete(listener)
  }

  emit<Name extends keyof ServerEvents>(name: Name, event: ServerEvents[Name]): void {
    const all = this.#listeners.get(name)
    if (all === undefined || all.size === 0) return
    for (const listener of all) (listener as (event: ServerEvents[Name]) => void)(event)
  }
}
