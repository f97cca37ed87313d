/**
 * Room for publishes that are not over: back-pressure. Owner: one client.
 *
 *     called --room--> inside --settled--> gone
 *            --full--> waiting, in order --room--> inside
 *
 * Invariants:
 * 1. At most `countMax` are inside, with at most `bytesMax` bytes; one alone may enter whatever its size.
 * 2. Who waits enters in the order of the calls, before anybody who comes later.
 * 3. At most WAITING_MAX wait; further ones are refused.
 */
import { XmqError } from '@xmq/protocol'
import { abortError } from './abort-error.ts'
import { onAbort } from './abort-listeners.ts'

interface Waiter {
  readonly bytes: number
  enter(): void
  refuse(error: XmqError): void
}

const WAITING_MAX = 100_000

/** Lets so many in at a time. */
export class Room {
  readonly #limits: { readonly countMax: number; readonly bytesMax: number }
  readonly #waiting = new Set<Waiter>()
  #count = 0
  #bytes = 0
  #onEmpty: (() => void)[] = []
  #onNobodyWaits: (() => void)[] = []

  constructor(limits: { readonly countMax: number; readonly bytesMax: number }) {
    this.#limits = limits
  }

  get isEmpty(): boolean {
    return this.#count === 0 && this.#waiting.size === 0
  }

  get waiting(): number {
    return this.#waiting.size
  }

  #fits(bytes: number): boolean {
    const { countMax, bytesMax } = this.#limits
    return this.#count === 0 || (this.#count < countMax && this.#bytes + bytes <= bytesMax)
  }

  /**
   * Enters, at once if there is room: then nothing is awaited, so that messages leave in the order of the calls.
   * @returns a promise while there is none
   * @throws XmqError `limit-reached` when `whenFull` is `refuse`, or too many wait; `aborted`, `timeout` by the signal
   */
  enter(
    bytes: number,
    { whenFull, signal }: { readonly whenFull: 'wait' | 'refuse'; readonly signal: AbortSignal | undefined },
  ): Promise<void> | undefined {
    if (this.#waiting.size === 0 && this.#fits(bytes)) {
      this.#take(bytes)
      return undefined
    }
    if (whenFull === 'refuse' || this.#waiting.size >= WAITING_MAX) {
      throw new XmqError(
        'limit-reached',
        `${this.#count} publishes with ${this.#bytes} bytes are pending and ${this.#waiting.size} wait; await them, or ` +
          'raise pendingMax.',
      )
    }
    return this.#wait(bytes, signal)
  }

  #wait(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(abortError(signal))
        return
      }
      const end = (): void => {
        this.#waiting.delete(waiter)
        off?.()
      }
      const waiter: Waiter = {
        bytes,
        enter: () => {
          end()
          this.#take(bytes)
          resolve()
        },
        refuse: (error) => {
          end()
          reject(error)
        },
      }
      const off =
        signal &&
        onAbort(signal, () => {
          waiter.refuse(abortError(signal))
          this.#admit()
        })
      this.#waiting.add(waiter)
    })
  }

  #take(bytes: number): void {
    this.#count++
    this.#bytes += bytes
  }

  /** One that was inside is over. */
  leave(bytes: number): void {
    this.#count--
    this.#bytes -= bytes
    this.#admit()
    if (!this.isEmpty) return
    for (const listener of this.#onEmpty.splice(0)) listener()
  }

  #admit(): void {
    for (const waiter of this.#waiting) {
      if (!this.#fits(waiter.bytes)) return
      waiter.enter()
    }
    for (const listener of this.#onNobodyWaits.splice(0)) listener()
  }

  /** Resolves when everybody who waits got in, or gave up. */
  whenNobodyWaits(): Promise<void> {
    if (this.#waiting.size === 0) return Promise.resolve()
    return new Promise((resolve) => void this.#onNobodyWaits.push(resolve))
  }

  /** Resolves when nobody is inside and nobody waits. */
  whenEmpty(): Promise<void> {
    return this.isEmpty ? Promise.resolve() : new Promise((resolve) => void this.#onEmpty.push(resolve))
  }

  /** Nobody who waits gets in any more. */
  close(error: XmqError): void {
    for (const waiter of this.#waiting) waiter.refuse(error)
    this.#admit()
  }
}
