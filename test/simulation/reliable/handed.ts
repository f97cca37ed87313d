/**
 * What one process was promised of the messages that it handles.
 *
 *     arrived --deliver--> handed --settle--> ended --said, heard--> over
 *        |                    \--lease-lost--> lost --settle--> over
 *        \-- nobody wants it, it is handed already, it was acked: it is answered for without a handler
 *
 * 1. A message is handed out once at a time, and not after its ack.
 * 2. What is said of a lease is what the handler came to; a lease is extended only while its handler runs.
 * 3. What a handler came to is said until the queue has answered, or with the receipt of a delivery. An ack that went so, and of which no
 *    answer shows that it was heard, is said again on a new connection.
 * 4. A delivery is answered within RECEIVE_MS_MAX, whatever handlers do.
 * 5. All that is handed and not lost is extended first thing on a new connection.
 * 6. Towards another broker it says that it has named all when it has: no handler is left out that ran already.
 * 7. It acks in one text only in the answer to a packed delivery.
 * 8. A handler hears that its message is lost when the queue has refused to extend each of its leases, and only then.
 */
import { childElements, type XmlElement } from '@xmq/protocol'
import type { Delivery, Input, SessionEvent, SessionRules } from '../../../packages/client/src/session/index.ts'
import { Violation } from '../violation.ts'
import { spokenIn } from './spoken.ts'

const RECEIVE_MS_MAX = 10

interface Job {
  readonly key: string
  state: 'arrived' | 'handed' | 'ended'
  outcome: string | undefined
  isLost: boolean
  readonly tokens: Set<string>
  /** Of these: what an answer that may pass for lost called over. */
  readonly perhapsOver: Set<string>
}

interface Asked {
  /** How many acks had gone with receipts before. */
  readonly ridden: number
  readonly tokens: ReadonlySet<string>
  readonly extends: ReadonlySet<string>
  /** Those that a later stanza says, too. */
  readonly saidAgain: Set<string>
  readonly overdueAt: number
  /** Another epoch was heard of since: it may pass for lost, and be said again when its answer has come. */
  isDoubtful: boolean
}

/** See the top of this file. */
export class Handed {
  readonly #process: string
  readonly #rules: SessionRules
  readonly #note: (what: string) => void
  /** The last one of each message. */
  readonly #jobs = new Map<string, Job>()
  readonly #acked = new Set<string>()
  readonly #byToken = new Map<string, Job[]>()
  /** What was said in a `<settle/>` that is not answered yet, by the id of its stanza. */
  readonly #asked = new Map<string, Asked>()
  #epoch: string | undefined
  /** Leases whose end the queue has not heard of. */
  readonly #owed = new Set<string>()
  /** Acks that went with receipts over this connection, each with its number, of which nothing shows that they were heard. */
  readonly #ridden = new Map<string, number>()
  #riddenCount = 0
  readonly #unreceived = new Map<string, number>()
  /** Those of them that are packed. */
  readonly #packed = new Set<string>()
  /** Jobs that lost their last lease with the input at hand. */
  #losing = new Set<Job>()
  #mayLose = new Set<Job>()
  #now = 0
  #declared: Set<string> | undefined
  /** What ran when the broker became another one, and has not been named since. */
  #unnamed = new Set<string>()
  #isComplete = false
  #extended = new Set<string>()

  constructor(process: string, rules: SessionRules, note: (what: string) => void) {
    this.#process = process
    this.#rules = rules
    this.#note = note
  }

  /** An input is about to be told of by its effects. */
  before(input: Input, now: number): void {
    this.#losing = new Set()
    this.#mayLose = new Set()
    this.#declared = undefined
    this.#extended = new Set()
    this.#isComplete = false
    this.#now = now
    if (input.type === 'down') this.disconnected(true)
    // An answer that comes later does not count: what it answers was said again.
    if (input.type === 'tick')
      for (const [id, { overdueAt }] of this.#asked) if (overdueAt <= now) this.#asked.delete(id)
    if (input.type === 'settle') this.#handlerEnded(input.key, input.outcome.kind)
    if (input.type !== 'stanza' || input.stanza.name !== 'iq') return
    const { stanza } = input
    if (stanza.attrs.get('from') !== this.#rules.queue) return
    const id = stanza.attrs.get('id') ?? ''
    const type = stanza.attrs.get('type')
    for (const { attrs } of childElements(stanza)) {
      const epoch = attrs.get('epoch')
      if (epoch === undefined || epoch === this.#epoch) continue
      this.#epoch = epoch
      for (const [other, asked] of this.#asked) if (other !== id) asked.isDoubtful = true
    }
    if (type === 'result' || type === 'error') this.#answered(id, stanza)
    const deliver = spokenIn(stanza).find((child) => child.name === 'deliver')
    if (deliver === undefined) return
    this.#unreceived.set(id, now + RECEIVE_MS_MAX)
    if (deliver.attrs.get('encoding') === 'packed') this.#packed.add(id)
    const together = new Set<Job>()
    for (const item of childElements(deliver)) together.add(this.#arrived(item, together))
  }

  /** @param together what came in the same stanza: of two durable subscriptions a message may come twice */
  #arrived(item: XmlElement, together: ReadonlySet<Job>): Job {
    const at = Date.parse(item.attrs.get('at') ?? '')
    const key = `${item.attrs.get('seq')}@${at}`
    const token = item.attrs.get('lease') ?? ''
    let job = this.#jobs.get(key)
    if (job === undefined || (job.state !== 'handed' && !this.#acked.has(key) && !together.has(job))) {
      job = { key, state: 'arrived', outcome: undefined, isLost: false, tokens: new Set(), perhapsOver: new Set() }
      this.#jobs.set(key, job)
    }
    if (job.state === 'handed') {
      job.tokens.add(token)
      job.isLost = false
    } else if (job.state === 'arrived') job.tokens.add(token)
    const jobs = this.#byToken.get(token)
    if (jobs === undefined) this.#byToken.set(token, [job])
    else if (!jobs.includes(job)) jobs.push(job)
    return job
  }

  #handlerEnded(key: string, outcome: string): void {
    const job = this.#jobs.get(key)
    if (job?.state !== 'handed') return
    job.state = 'ended'
    job.outcome = outcome
    if (outcome === 'ack') this.#acked.add(key)
    // Nothing more may be said of a lease that is perhaps over.
    for (const token of job.tokens) if (!job.perhapsOver.has(token)) this.#owed.add(token)
  }

  #answered(id: string, iq: XmlElement): void {
    const asked = this.#asked.get(id)
    if (asked === undefined) return
    this.#asked.delete(id)
    const settled = childElements(iq).find((child) => child.name === 'settled')
    // A refusal of the whole is repeated, or told of: nothing was done.
    if (settled === undefined) return
    for (const [token, number] of this.#ridden) if (number <= asked.ridden) this.#ridden.delete(token)
    const failed = new Map(childElements(settled).map((item) => [item.attrs.get('lease') ?? '', typeOf(item)]))
    for (const token of asked.tokens) {
      const error = failed.get(token)
      if (error === 'wait') continue
      // Of what was said again the earlier answer may count or not, however late it is: its stanza may pass for lost.
      const isSaidAgain = asked.saidAgain.has(token)
      if (!isSaidAgain) this.#owed.delete(token)
      if (error !== undefined && asked.extends.has(token)) this.#leaseOver(token, !isSaidAgain && !asked.isDoubtful)
    }
  }

  #leaseOver(token: string, isSure: boolean): void {
    for (const job of this.#byToken.get(token) ?? []) {
      if (job.state !== 'handed' || !job.tokens.has(token)) continue
      if (isSure && job.tokens.size === 1) this.#losing.add(job)
      job.perhapsOver.add(token)
      if (job.perhapsOver.size === job.tokens.size) this.#mayLose.add(job)
      if (!isSure) continue
      job.tokens.delete(token)
      job.perhapsOver.delete(token)
    }
  }

  /** A message goes to a handler. */
  delivered({ lease }: Delivery): void {
    if (lease === undefined) return
    const job = this.#jobs.get(lease.key)
    if (job === undefined) return this.#broken(`${lease.key} is handed out, and never came`)
    if (job.state === 'handed') return this.#broken(`${lease.key} is handed out while its handler runs`)
    if (this.#acked.has(lease.key)) return this.#broken(`${lease.key} is handed out after its ack`)
    job.state = 'handed'
    this.#note('sdk handed')
  }

  /** A handler is told to stop. */
  lost(key: string): void {
    const job = this.#jobs.get(key)
    if (job === undefined || !(this.#losing.delete(job) || this.#mayLose.has(job)))
      return this.#broken(`the handler of ${key} is stopped for nothing`)
    job.isLost = true
    job.tokens.clear()
    job.perhapsOver.clear()
    this.#note('sdk lease lost')
  }

  /** Settlements leave. */
  said(stanza: XmlElement, settle: XmlElement): void {
    const isReceipt = stanza.attrs.get('type') === 'result'
    const isPacked = isReceipt && this.#packed.has(stanza.attrs.get('id') ?? '')
    if (!isPacked && saysAcks(stanza)) this.#broken('acks in one text what did not come so')
    const tokens: string[] = []
    const extended = new Set<string>()
    if (settle.attrs.get('complete') === 'true') this.#isComplete = true
    for (const child of childElements(settle)) {
      const token = child.attrs.get('lease') ?? ''
      tokens.push(token)
      const jobs = this.#byToken.get(token) ?? []
      for (const { key } of jobs) this.#unnamed.delete(key)
      if (!jobs.some((job) => this.#maySay(job, child.name))) {
        const states = jobs.map(({ state, outcome }) => outcome ?? state).join(', ')
        this.#broken(`says ${child.name} of ${token}, which is ${states === '' ? 'not its own' : states}`)
      }
      if (child.name === 'extend') {
        extended.add(token)
        this.#extended.add(token)
      } else if (isReceipt) {
        this.#owed.delete(token)
        if (child.name === 'ack') this.#ridden.set(token, ++this.#riddenCount)
        this.#note('sdk settled with the receipt')
      }
    }
    const overdueAt = this.#now + this.#rules.answerTimeoutMs
    if (isReceipt) return
    for (const earlier of this.#asked.values()) {
      for (const token of tokens) if (earlier.tokens.has(token)) earlier.saidAgain.add(token)
    }
    this.#asked.set(stanza.attrs.get('id') ?? '', {
      ridden: this.#riddenCount,
      tokens: new Set(tokens),
      extends: extended,
      saidAgain: new Set(),
      overdueAt,
      isDoubtful: false,
    })
  }

  #maySay({ key, state, outcome }: Job, kind: string): boolean {
    if (kind === 'extend') return state === 'handed'
    if (kind === 'ack') return this.#acked.has(key)
    if (kind === 'release' && state === 'arrived') return true
    return state === 'ended' && outcome === kind
  }

  /** A stanza leaves. */
  sent(stanza: XmlElement): void {
    const type = stanza.attrs.get('type')
    if (type === 'result' || type === 'error') this.#unreceived.delete(stanza.attrs.get('id') ?? '')
  }

  /** An event of the session. */
  told(event: SessionEvent): void {
    if (event.name === 'broker-changed') {
      this.#unnamed = new Set()
      for (const { key, state, isLost, tokens } of this.#jobs.values()) {
        if (state !== 'handed' || isLost || tokens.size === 0) continue
        if (![...tokens].some((token) => this.#extended.has(token))) this.#unnamed.add(key)
      }
    }
    if (event.name !== 'mode' || event.mode !== 'reliable') return
    this.#declared = new Set()
    for (const { key, state, isLost, tokens } of this.#jobs.values()) {
      if (state === 'handed' && !isLost && tokens.size > 0) this.#declared.add(key)
    }
  }

  /** The connection is over. @param goesOn another one may follow */
  disconnected(goesOn: boolean): void {
    if (goesOn) for (const token of this.#ridden.keys()) this.#owed.add(token)
    this.#ridden.clear()
    this.#asked.clear()
    this.#unreceived.clear()
  }

  /** All effects were told of. */
  after(unsettled: number, now: number): void {
    for (const { key } of this.#losing) this.#broken(`the handler of ${key} is not told that its lease is lost`)
    for (const key of this.#declared ?? []) {
      const { tokens } = this.#jobs.get(key) as Job
      if (![...tokens].some((token) => this.#extended.has(token))) this.#broken(`${key} is not declared anew`)
      this.#note('sdk declared anew')
    }
    if (this.#isComplete) {
      this.#note('sdk named all')
      for (const key of this.#unnamed) {
        const { state, isLost } = this.#jobs.get(key) as Job
        if (state === 'handed' && !isLost) this.#broken(`it has not named ${key}, and says that it has named all`)
      }
    }
    if (unsettled < this.#owed.size) this.#broken(`${this.#owed.size} settlements are owed, ${unsettled} are kept`)
    for (const [id, at] of this.#unreceived) if (at < now) this.#broken(`delivery ${id} is not answered in time`)
  }

  /** The faults have stopped, and all had its time. */
  checkEnd(unsettled: number): void {
    if (unsettled > 0 || this.#owed.size > 0) this.#broken(`${unsettled} settlements were never heard of`)
    for (const { key, state } of this.#jobs.values()) if (state === 'handed') this.#broken(`${key} is still handled`)
  }

  #broken(what: string): void {
    throw new Violation(`${this.#process}: ${what}`)
  }
}

function typeOf(item: XmlElement): string {
  const error = childElements(item).find((child) => child.name === 'error')
  return error?.attrs.get('type') ?? 'cancel'
}

/** Whether acks stand in one text, as it was written. */
function saysAcks(stanza: XmlElement): boolean {
  const settle = childElements(stanza).find((child) => child.name === 'settle')
  return settle !== undefined && childElements(settle).some((child) => child.name === 'acks')
}
