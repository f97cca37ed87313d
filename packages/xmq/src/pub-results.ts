/**
 * What becomes of each message that `xmq pub` sends. Owns the messages whose fate is not known yet.
 *
 * ```
 *  sent --confirmed (a reliable queue)------------------> taken
 *   |`----refused, unconfirmed--------------------------> failed
 *   |`----returned (a plain queue)----------------------> failed
 *   `--written--+--a ping sent after it is answered-----> taken
 *               `--no answer, or the connection is lost-> failed: unconfirmed
 * ```
 *
 * 1. Each message is told once, when its fate and that of all before it is known: streams are ordered, so a refusal comes before the
 *    ping's answer.
 * 2. At most one ping is under way; at most `PENDING_MAX` messages are not told.
 * 3. What fails before it is sent fails `send`, and nothing follows it.
 */
import { setImmediate } from 'node:timers/promises'
import type { Client, Published } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import { explain } from './exit.ts'

const PENDING_MAX = 1000

/** One message's end. */
export interface PubResult {
  readonly id: string
  /** Its line of stdin, from 1 on; 0 where it is no line. */
  readonly number: number
  /** What a reliable queue confirmed. */
  readonly published?: Published
  /** Why it was refused, or is not known to be taken. */
  readonly error?: XmqError
}

interface Message {
  readonly id: string
  readonly number: number
  state: 'sent' | 'written' | 'over'
  result: PubResult | undefined
}

/** What it needs of a client. */
type PubClient = Pick<Client, 'queue' | 'on' | 'ping'>

/** Follows what a client publishes. */
export class PubResults {
  readonly #client: PubClient
  readonly #topic: string
  readonly #timeoutMs: number
  readonly #tell: (result: PubResult) => void
  /** In the order in which they were sent; from the first whose fate is not known. */
  readonly #pending = new Map<string, Message>()
  #changed: (() => void)[] = []
  #isSettling = false
  #sentCount = 0
  #failedCount = 0
  #first: PubResult | undefined
  #unanswered: XmqError | undefined

  constructor(client: PubClient, topic: string, timeoutMs: number, tell: (result: PubResult) => void) {
    this.#client = client
    this.#topic = topic
    this.#timeoutMs = timeoutMs
    this.#tell = tell
    client.on('returned', ({ id, error }) => this.#end(id, { error: explain(error, client.queue, topic) }))
    client.on('offline', ({ reason }) => this.#endWritten(reason))
  }

  /** How many messages were sent, and how many of them were refused or are not known to be taken. */
  get counts(): { readonly sent: number; readonly failed: number } {
    return { sent: this.#sentCount, failed: this.#failedCount }
  }

  /** Sends one message when there is room for it; what becomes of it is told. @throws what kept it from being sent */
  async send(id: string, number: number, publish: () => Promise<Published | undefined | void>): Promise<void> {
    while (this.#pending.size >= PENDING_MAX) await this.#change()
    if (this.#unanswered !== undefined) throw this.#unanswered
    const message: Message = { id, number, state: 'sent', result: undefined }
    this.#pending.set(id, message)
    this.#sentCount++
    let failure: unknown
    let isSending = true
    const publishing = publish().then(
      (published) => this.#published(message, published ?? undefined),
      (error: unknown) => {
        if (isSending && !XmqError.from(error).fromBroker) failure = error
        else this.#end(id, { error: explain(XmqError.from(error), this.#client.queue, this.#topic) })
      },
    )
    // What cannot be sent fails within the turn; whatever else becomes of it is waited for while others are sent.
    await Promise.race([publishing, setImmediate()])
    isSending = false
    if (failure === undefined) return
    if (this.#pending.delete(id)) this.#sentCount--
    throw failure
  }

  #published(message: Message, published: Published | undefined): void {
    if (message.state === 'over') return
    if (published?.seq !== undefined) {
      this.#end(message.id, { published })
      return
    }
    message.state = 'written'
    if (!this.#isSettling) void this.#settle()
  }

  #change(): Promise<void> {
    return new Promise((resolve) => void this.#changed.push(resolve))
  }

  /** Resolves when every message's fate is known, with the reason why not all were taken, if so. */
  async settled(): Promise<XmqError | undefined> {
    while (this.#pending.size > 0) await this.#change()
    const first = this.#first
    const error = first?.error
    if (first === undefined || error === undefined) return this.#unanswered
    if (this.#unanswered !== undefined && error.code === 'unconfirmed') return this.#unanswered
    const { sent, failed } = this.counts
    const what = error.code === 'unconfirmed' ? 'not known to be taken' : 'refused'
    const who = sent === 1 ? `Message ${first.id} was ${what}` : `${failed} of ${sent} messages were ${what}`
    return new XmqError(error.code, `${who}: ${error.message}`, { cause: error, condition: error.condition })
  }

  /** Pings until nothing that was written is unsettled. */
  async #settle(): Promise<void> {
    this.#isSettling = true
    for (let batch = this.#written(); batch.length > 0; batch = this.#written()) {
      try {
        await this.#client.ping({ timeout: this.#timeoutMs })
      } catch (error) {
        this.#unanswered = XmqError.from(error)
        this.#endWritten(this.#unanswered)
        break
      }
      for (const id of batch) this.#end(id, {})
    }
    this.#isSettling = false
  }

  #written(): readonly string[] {
    return [...this.#pending.values()].filter(({ state }) => state === 'written').map(({ id }) => id)
  }

  #endWritten(reason: XmqError): void {
    const text = `${reason.message} Whether the queue has taken it is not known.`
    for (const id of this.#written()) this.#end(id, { error: new XmqError('unconfirmed', text, { cause: reason }) })
  }

  #end(id: string, fate: Pick<PubResult, 'published' | 'error'>): void {
    const message = this.#pending.get(id)
    if (message === undefined || message.state === 'over') return
    message.state = 'over'
    message.result = { id, number: message.number, ...fate }
    if (fate.error !== undefined) {
      this.#failedCount++
      this.#first ??= message.result
    }
    for (const first of this.#pending.values()) {
      if (first.result === undefined) break
      this.#pending.delete(first.id)
      this.#tell(first.result)
    }
    for (const resolve of this.#changed.splice(0)) resolve()
  }
}
