/**
 * So many at a time, in order. Owner: the deliveries of one worker.
 *
 *     add --a slot is free--> running --its promise settles--> over: the slot takes the next one that waits
 *         --else--> waiting, in the order of the calls
 *
 * Invariants:
 * 1. At most `countMax` run, and nothing waits while a slot is free.
 * 2. Who waits begins in the order of the calls.
 *
 * A promise and a closure a job, as queues of functions have them, cost more than the job where handlers are short.
 */
export class Slots<Job> {
  readonly #countMax: number
  readonly #run: (job: Job) => Promise<void>
  /** From `#first` on. */
  #jobs: (Job | undefined)[] = []
  #first = 0
  #running = 0
  #onIdle: (() => void)[] = []

  /** @param run never rejects */
  constructor(countMax: number, run: (job: Job) => Promise<void>) {
    this.#countMax = countMax
    this.#run = run
  }

  get running(): number {
    return this.#running
  }

  get waiting(): number {
    return this.#jobs.length - this.#first
  }

  /** Begins at once where a slot is free. */
  add(job: Job): void {
    if (this.#running < this.#countMax) void this.#fill(job)
    else this.#jobs.push(job)
  }

  /** Resolves when nothing runs and nothing waits. */
  whenIdle(): Promise<void> {
    return this.#running === 0 ? Promise.resolve() : new Promise((resolve) => void this.#onIdle.push(resolve))
  }

  async #fill(first: Job): Promise<void> {
    this.#running++
    for (let job: Job | undefined = first; job !== undefined; job = this.#next()) await this.#run(job)
    this.#running--
    if (this.#running === 0) for (const listener of this.#onIdle.splice(0)) listener()
  }

  #next(): Job | undefined {
    if (this.waiting === 0) return undefined
    const job = this.#jobs[this.#first]
    this.#jobs[this.#first] = undefined
    this.#first++
    if (this.#first === this.#jobs.length) {
      this.#jobs = []
      this.#first = 0
    } else if (this.#first > 1024 && this.#first * 2 > this.#jobs.length) {
      this.#jobs = this.#jobs.slice(this.#first)
      this.#first = 0
    }
    return job
  }
}
