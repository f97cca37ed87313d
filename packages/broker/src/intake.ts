/**
 * What came in and is not given to the core yet. Owner: the runtime.
 *
 *     stanza --not pressed, or class settle or presence--> core
 *         \--admin, renew, publish, while pressed--> deferred --all that had come was read, or full--> core, class by class
 *
 * So a settlement that was read in the same turn as a thousand renewals and publishes is done before them, and a question of an
 * admin before those. The classes are those of core/overload.ts.
 *
 * Invariants:
 * 1. What is of one class keeps its order, whoever sent it.
 * 2. Of one sender only publishes are overtaken: a session's `sub` is done before the presence that ends it, and before what it settles.
 * 3. A cancel never overtakes the request that it is about: the request would run, and nobody be there for its answer.
 * 4. At most {@link DEFERRED_MAX} stanzas are deferred, that came in at most {@link DEFERRED_BYTES_MAX} bytes and one chunk more.
 */
import { childElements, findChild, NS_QUEUE, type XmlElement } from '@xmq/protocol'
import { bringsWork, classOf, WORK_CLASSES, type WorkClass } from './core/index.ts'

/** Most stanzas that are deferred. */
export const DEFERRED_MAX = 2000
/** Most bytes of chunks in which they came. */
export const DEFERRED_BYTES_MAX: number = 4 * 1024 * 1024

/** What {@link Intake} needs. */
export interface IntakePort {
  /** Whether what frees goes before what fills. */
  isPressed(): boolean
  handle(stanza: XmlElement): void
}

/** See the top of this file. */
export class Intake {
  readonly #port: IntakePort
  #deferred: Partial<Record<WorkClass, XmlElement[]>> = {}
  #count = 0
  /** Who sent what is deferred, but for publishes. */
  readonly #senders: Set<string | undefined> = new Set()
  /** Who sent publishes and requests that are deferred. */
  #publishers: Set<string | undefined> = new Set()
  #bytes = 0
  #timer: NodeJS.Immediate | undefined

  constructor(port: IntakePort) {
    this.#port = port
  }

  /** Stanzas that are deferred. */
  get deferred(): number {
    return this.#count
  }

  take(stanza: XmlElement): void {
    if (this.#count === 0 && !this.#port.isPressed()) {
      this.#port.handle(stanza)
      return
    }
    const sender = stanza.attrs.get('from')
    const workClass = this.#publishers.has(sender) && isCancel(stanza) ? 'publish' : classOf(stanza)
    if (workClass === 'settle' || workClass === 'presence') {
      if (this.#senders.has(sender)) this.#handOn('admin', 'renew')
      this.#port.handle(stanza)
      return
    }
    if (workClass === 'admin' && this.#senders.has(sender)) this.#handOn('admin', 'renew')
    if (workClass === 'publish') this.#publishers.add(sender)
    else this.#senders.add(sender)
    const deferred = (this.#deferred[workClass] ??= [])
    deferred.push(stanza)
    this.#count++
    this.#timer ??= setImmediate(() => this.drain())
    if (this.#count >= DEFERRED_MAX) this.drain()
  }

  /** A chunk of so many bytes was read. */
  chunkRead(bytes: number): void {
    if (this.#count === 0) return
    this.#bytes += bytes
    if (this.#bytes >= DEFERRED_BYTES_MAX) this.drain()
  }

  /** Hands on what is deferred. */
  drain(): void {
    clearImmediate(this.#timer)
    this.#timer = undefined
    this.#bytes = 0
    this.#publishers = new Set()
    this.#handOn(...WORK_CLASSES)
  }

  #handOn(...classes: readonly WorkClass[]): void {
    this.#senders.clear()
    for (const workClass of classes) {
      const deferred = this.#deferred[workClass] ?? []
      this.#deferred[workClass] = []
      this.#count -= deferred.length
      for (const stanza of deferred) this.#port.handle(stanza)
    }
  }
}

/** Whether a requester waits no more. */
function isCancel(stanza: XmlElement): boolean {
  return stanza.name === 'iq' && findChild(stanza, 'cancel', NS_QUEUE) !== undefined
}

/** Whether a whole stanza brings new work. */
export function hasWork(stanza: XmlElement): boolean {
  return childElements(stanza).some((child) => bringsWork(stanza, child))
}
