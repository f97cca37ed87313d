/** The addresses that the broker answers for: its domains, and the queues in them. Fixed for the core's life. */
import { bareOf, domainOf } from '@xmq/protocol'
import { createAccess } from './access.ts'
import { Line } from './lines.ts'
import type { CoreRules, QueueRules } from './port.ts'
import type { Domain, Queue } from './records.ts'

/** What an address stands for. `queue` is `undefined` when its domain is ours and neither it nor its domain is a queue. */
export interface Place {
  readonly domain: Domain
  readonly queue: Queue | undefined
  /** The address without its resource. */
  readonly address: string
}

/** All domains and queues. */
export class Queues {
  readonly domains: Map<string, Domain> = new Map()
  readonly #byAddress: Map<string, Queue> = new Map()

  constructor(rules: CoreRules) {
    for (const name of rules.domains) this.#domain(name)
    for (const queue of rules.queues) this.#add(queue)
  }

  /** All queues. */
  get all(): Iterable<Queue> {
    return this.#byAddress.values()
  }

  /** The queue of that address. */
  find(address: string): Queue | undefined {
    return this.#byAddress.get(address)
  }

  /** What a stanza's `to` stands for, its resource aside (mod_xmq ignores it too); `undefined` outside our domains. */
  resolve(to: string): Place | undefined {
    const address = bareOf(to)
    // ejabberd hands an address on as its sender wrote it; hardly any has upper case, so that is looked at last.
    return this.#find(address) ?? this.#find(address.toLowerCase())
  }

  #find(address: string): Place | undefined {
    const queue = this.#byAddress.get(address)
    if (queue !== undefined) return { domain: queue.domain, queue, address }
    const domain = this.domains.get(domainOf(address))
    // mod_xmq ignores the node: what is addressed to one of a domain that is itself a queue is meant for that.
    const wide = domain && this.#byAddress.get(domain.name)
    return domain && { domain, queue: wide, address: wide?.address ?? address }
  }

  #add(rules: QueueRules): void {
    const domain = this.#domain(domainOf(rules.address))
    const queue: Queue = {
      address: rules.address,
      domain,
      rules,
      publish: createAccess(rules.publish),
      consume: createAccess(rules.consume),
      admins: createAccess(rules.admins),
      topics: new Map(),
      patterns: new Map(),
      lines: new Map(),
      isLoaded: false,
      reliableConsumers: 0,
      consumers: new Map(),
      subscriptionsByBare: new Map(),
    }
    if (rules.type === 'any') queue.lines.set('', new Line(queue, '', '', ''))
    domain.queues.push(queue)
    this.#byAddress.set(queue.address, queue)
  }

  #domain(name: string): Domain {
    const known = this.domains.get(name)
    if (known !== undefined) return known
    const domain: Domain = { name, queues: [], isDown: false, epoch: undefined, held: [] }
    this.domains.set(name, domain)
    return domain
  }
}
