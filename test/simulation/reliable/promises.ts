/**
 * What the SDK promises to those who use it, told from what goes into a session and what comes out of it.
 *
 * | promise | seen in |
 * |---|---|
 * | a publish ends once: confirmed, which is true, or failed, as `unconfirmed` where it may be stored | published.ts |
 * | publishes leave in order, what came back first; of one key one at a time | published.ts |
 * | a message is in one handler at a time, and in none after its ack | handed.ts |
 * | what is said of a message is what its handler came to, and is said until the queue has heard it | handed.ts |
 * | what is held is declared on each new connection, and what is lost is told to its handler | handed.ts |
 *
 * Owner: the world; one for each process lives as long as the process.
 */
import { type XmlElement, XmqError } from '@xmq/protocol'
import type { Effect, Input } from '../../../packages/client/src/session/index.ts'
import { Handed } from './handed.ts'
import type { SentItem } from './items.ts'
import { Published } from './published.ts'
import type { SdkProcess, SdkWatch } from './sdk.ts'
import { spokenIn } from './spoken.ts'

/** What is known of the store, whoever asks. */
export interface StoreTruth {
  /** Whether an item was ever stored under a seq. */
  readonly wasStored: (item: SentItem, seq: number) => boolean
  readonly durability: string
  readonly now: () => number
  readonly note: (what: string) => void
}

interface Watched {
  readonly published: Published
  readonly handed: Handed
}

/** See the top of this file. */
export class Promises implements SdkWatch {
  /** What callers give up with. */
  readonly canceled: XmqError = new XmqError('aborted', 'The caller gave up.')
  readonly #truth: StoreTruth
  readonly #watched = new Map<SdkProcess, Watched>()

  constructor(truth: StoreTruth) {
    this.#truth = truth
  }

  /** A process is about to publish. */
  publishes(process: SdkProcess, ref: number, item: SentItem): void {
    this.#of(process).published.called(ref, item)
  }

  /** The store has an item that it did not have. */
  stored(item: SentItem): void {
    for (const { published } of this.#watched.values()) published.stored(item)
  }

  /** A stanza of a session reaches the core twice. */
  doubled(outgoing: XmlElement): void {
    for (const child of spokenIn(outgoing)) {
      if (child.name !== 'publish') continue
      for (const { published } of this.#watched.values()) published.doubled(child)
    }
  }

  /** A session has handled an input. */
  passed(process: SdkProcess, input: Input, effects: readonly Effect[]): void {
    const { published, handed } = this.#of(process)
    const now = this.#truth.now()
    published.before(input)
    handed.before(input, now)
    for (const effect of effects) {
      if (effect.type === 'send') {
        for (const child of spokenIn(effect.stanza)) {
          if (child.name === 'publish') published.sent(effect.stanza.attrs.get('id') ?? '', child, now)
          if (child.name === 'settle') handed.said(effect.stanza, child)
        }
        handed.sent(effect.stanza)
      } else if (effect.type === 'settled' || effect.type === 'failed') published.ended(effect)
      else if (effect.type === 'deliver') handed.delivered(effect.delivery)
      else if (effect.type === 'lease-lost') handed.lost(effect.key)
      else if (effect.type === 'drop' || effect.type === 'close') {
        published.disconnected()
        handed.disconnected(effect.type === 'drop')
      } else if (effect.type === 'event') handed.told(effect.event)
    }
    handed.after(process.unsettled, now)
  }

  died(process: SdkProcess): void {
    this.#watched.delete(process)
  }

  /** The faults have stopped and all had its time. */
  checkEnd(): void {
    for (const [process, { handed }] of this.#watched) if (process.isAlive) handed.checkEnd(process.unsettled)
  }

  #of(process: SdkProcess): Watched {
    let watched = this.#watched.get(process)
    if (watched === undefined) {
      watched = {
        published: new Published(process.name, process.rules, this.#truth),
        handed: new Handed(process.name, process.rules, this.#truth.note),
      }
      this.#watched.set(process, watched)
    }
    return watched
  }
}
