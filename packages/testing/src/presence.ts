/**
 * Presence without rosters: broadcast among an account's own resources, directed presence, and the `unavailable` at a
 * session's end (RFC 6121 4.2 to 4.6). Sole owner of who is available and of who was told.
 *
 *     (absent) --presence--> available --presence--> available
 *                               `-- unavailable, or the session's end --> (absent), told to all who were told
 *
 * Invariants:
 * 1. Whoever got a session's directed presence gets its `unavailable` once, unless it was taken back before.
 * 2. Held announcements keep their order.
 */
import {
  element,
  findChild,
  formatBareJid,
  formatJid,
  NS_CLIENT,
  textOf,
  tryParseJid,
  withAttrs,
  type XmlElement,
} from '@xmq/protocol'
import type { BoundSession, Router } from './router.ts'

interface Entry {
  /** The last broadcast presence, `undefined` while the session is not available. */
  presence: XmlElement | undefined
  priority: number
  readonly directed: Set<string>
}

const DIRECTED_MAX = 1000
const HELD_MAX = 10_000

export class PresenceBook {
  readonly #router: Router
  readonly #onAnnounced: (session: BoundSession) => void
  readonly #entries = new Map<BoundSession, Entry>()
  /** Announcements of replaced sessions, by full JID, that wait for the successor's first presence. */
  readonly #late = new Map<string, (() => void)[]>()
  readonly #held: (() => void)[] = []
  #holding = false
  #repeats = 1

  /** @param onAnnounced called when a session's end has been told: at once, or later when that was asked for */
  constructor(router: Router, onAnnounced: (session: BoundSession) => void) {
    this.#router = router
    this.#onAnnounced = onAnnounced
  }

  priorityOf(session: BoundSession): number | undefined {
    const entry = this.#entries.get(session)
    return entry?.presence === undefined ? undefined : entry.priority
  }

  /** Takes a presence of a session, `from` stamped. */
  handle(session: BoundSession, presence: XmlElement): void {
    const entry = this.#entryOf(session)
    if (presence.attrs.get('to') === undefined) this.#broadcast(session, entry, presence)
    else this.#direct(entry, presence)
    const late = this.#late.get(session.full)
    if (late === undefined) return
    this.#late.delete(session.full)
    for (const announce of late) announce()
  }

  /** The session is over: tells everybody. @param late once the next session of the full JID has sent its first presence */
  end(session: BoundSession, late: boolean): void {
    const entry = this.#entries.get(session)
    this.#entries.delete(session)
    const announce = (): void => this.#announceEnd(session, entry)
    const earlier = this.#late.get(session.full) ?? []
    this.#late.delete(session.full)
    if (late) this.#late.set(session.full, [...earlier, announce])
    else for (const each of [...earlier, announce]) each()
  }

  /** Holds every announcement of a session's end until {@link release}. */
  hold(): void {
    this.#holding = true
  }

  release(): void {
    this.#holding = false
    for (const announce of this.#held.splice(0)) announce()
  }

  /** Sends every `unavailable` that many times. */
  repeat(times: number): void {
    this.#repeats = Math.min(Math.max(Math.trunc(times), 0), 10)
  }

  #entryOf(session: BoundSession): Entry {
    const known = this.#entries.get(session)
    if (known !== undefined) return known
    const entry: Entry = { presence: undefined, priority: 0, directed: new Set() }
    this.#entries.set(session, entry)
    return entry
  }

  #broadcast(session: BoundSession, entry: Entry, presence: XmlElement): void {
    const type = presence.attrs.get('type')
    if (type === 'unavailable') {
      this.#tell(entry, session, presence)
      entry.presence = undefined
      entry.directed.clear()
      return
    }
    if (type !== undefined) return
    const initial = entry.presence === undefined
    entry.presence = presence
    entry.priority = priorityOf(presence)
    for (const own of this.#available(session)) {
      this.#router.route(withAttrs(presence, { to: own.full }))
      const theirs = this.#entries.get(own)?.presence
      if (initial && own !== session && theirs !== undefined) {
        this.#router.route(withAttrs(theirs, { to: session.full }))
      }
    }
  }

  #direct(entry: Entry, presence: XmlElement): void {
    const type = presence.attrs.get('type')
    const jid = tryParseJid(presence.attrs.get('to') ?? '')
    if (jid !== undefined) {
      const to = formatJid(jid)
      if (type === 'unavailable') entry.directed.delete(to)
      else if (type === undefined) {
        if (entry.directed.size >= DIRECTED_MAX && !entry.directed.has(to)) {
          return this.#router.bounce(presence, {
            type: 'wait',
            condition: 'resource-constraint',
            text: `A session may direct presence to ${DIRECTED_MAX} addresses`,
          })
        }
        entry.directed.add(to)
      }
    }
    this.#router.route(presence)
  }

  #announceEnd(session: BoundSession, entry: Entry | undefined): void {
    if (this.#holding && this.#held.length < HELD_MAX) {
      this.#held.push(() => this.#announceEnd(session, entry))
      return
    }
    if (entry !== undefined) {
      const unavailable = element('presence', NS_CLIENT, { type: 'unavailable', from: session.full })
      for (let time = 0; time < this.#repeats; time++) this.#tell(entry, session, unavailable)
    }
    this.#onAnnounced(session)
  }

  /** Tells the account's available resources, if the session was available, and whoever got directed presence. */
  #tell(entry: Entry, session: BoundSession, presence: XmlElement): void {
    if (entry.presence !== undefined) {
      for (const own of this.#available(session)) this.#router.route(withAttrs(presence, { to: own.full }))
    }
    for (const to of entry.directed) this.#router.route(withAttrs(presence, { to }))
  }

  #available(session: BoundSession): BoundSession[] {
    const own = this.#router.sessionsOf(formatBareJid(session.jid))
    return own.filter((each) => this.priorityOf(each) !== undefined)
  }
}

function priorityOf(presence: XmlElement): number {
  const child = findChild(presence, 'priority')
  const value = child === undefined ? 0 : Number(textOf(child).trim())
  return Number.isInteger(value) && value >= -128 && value <= 127 ? value : 0
}
