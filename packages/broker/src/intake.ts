/**
 * What came in and is not given to the core yet. Owner: the runtime.
 *
 *     stanza --not pressed, or no new work--> core
 *         \--new work, while pressed--> deferred --all that had come was read, or full--> core, in the order of arrival
 *
 * So a settlement that was read in the same turn as a thousand publishes is done before them. A `sub` or `del` overtakes
 * publishes, too: they say who listens from now on.
 *
 * Invariants:
 * 1. New work keeps its order, whoever sent it.
 * 2. At most {@link DEFERRED_MAX} stanzas are deferred, that came in at most {@link DEFERRED_BYTES_MAX} bytes and one chunk more.
 */
import { childElements, type XmlElement } from '@xmq/protocol'
import { bringsWork } from './core/index.ts'

/** Most stanzas that are deferred. */
export const DEFERRED_MAX = 2000
/** Most bytes of chunks in which they came. */
export const DEFERRED_BYTES_MAX: number = 4 * 1024 * 1024

/** What {@link Intake} needs. */
export interface IntakePort {
  /** Whether new work goes behind all else. */
  isPressed(): boolean
  handle(stanza: XmlElement): void
}

/** See the top of this file. */
export class Intake {
  readonly #port: IntakePort
  #deferred: XmlElement[] = []
  #bytes = 0
  #timer: NodeJS.Immediate | undefined

  constructor(port: IntakePort) {
    this.#port = port
  }

  /** Stanzas that are deferred. */
  get deferred(): number {
    return this.#deferred.length
  }

  take(stanza: XmlElement): void {
    if (this.#deferred.length === 0 && !this.#port.isPressed()) {
      this.#port.handle(stanza)
      return
    }
    if (!hasWork(stanza)) {
      this.#port.handle(stanza)
      return
    }
    this.#deferred.push(stanza)
    this.#timer ??= setImmediate(() => this.drain())
    if (this.#deferred.length >= DEFERRED_MAX) this.drain()
  }

  /** A chunk of so many bytes was read. */
  chunkRead(bytes: number): void {
    if (this.#deferred.length === 0) return
    this.#bytes += bytes
    if (this.#bytes >= DEFERRED_BYTES_MAX) this.drain()
  }

  /** Hands on what is deferred. */
  drain(): void {
    clearImmediate(this.#timer)
    this.#timer = undefined
    const deferred = this.#deferred
    this.#deferred = []
    this.#bytes = 0
    for (const stanza of deferred) this.#port.handle(stanza)
  }
}

/** Whether a whole stanza brings new work. */
export function hasWork(stanza: XmlElement): boolean {
  return childElements(stanza).some((child) => bringsWork(stanza, child))
}
