/** A link under test, with everything that it reported. */
import { element, stanza, type XmlElement, type XmqError } from '@xmq/protocol'
import { createComponentLink } from '../../src/component.ts'
import type { ComponentLink, ComponentLinkHandlers, ComponentLinkOptions, LinkStatus } from '../../src/component.ts'
import { FakeClock } from './fake-clock.ts'
import { FakeServer, SECRET } from './fake-server.ts'

export const DOMAIN = 'queue1.localhost'

/** A link and its log. */
export class Probe {
  readonly link: ComponentLink
  readonly stanzas: XmlElement[] = []
  readonly statuses: LinkStatus[] = []
  /** Names of what was reported, in order. */
  readonly log: string[] = []
  readonly fatal: XmqError[] = []
  readonly downs: XmqError[] = []
  #seen: (() => void)[] = []

  constructor(options: ComponentLinkOptions, more: Partial<ComponentLinkHandlers> = {}) {
    this.link = createComponentLink(options, {
      onUp: () => this.#note('up', more.onUp?.()),
      onDown: (reason) => this.#note(`down ${reason.code}`, this.downs.push(reason)),
      onStanza: (root) => this.#note('stanza', this.stanzas.push(root), more.onStanza?.(root)),
      onSkipped: (head, error) => this.#note(`skipped ${head.name} ${error.code}`),
      onChild: (head, child) => more.onChild?.(head, child),
      onInputEnd: (bytes) => this.#note('input-end', more.onInputEnd?.(bytes)),
      onStatus: (status) => this.#note(status.state, this.statuses.push(status)),
      onCongested: (congested) => this.#note(congested ? 'congested' : 'drained'),
      onFatal: (error) => this.#note('fatal', this.fatal.push(error)),
      onMisrouted: (domain, root) => this.#note(`misrouted ${domain}`, more.onMisrouted?.(domain, root)),
    })
  }

  /** Resolves as soon as `test` holds; looked at after every report. */
  async until(test: (probe: Probe) => boolean): Promise<void> {
    while (!test(this)) await new Promise<void>((resolve) => this.#seen.push(resolve))
  }

  async untilState(state: LinkStatus['state']): Promise<LinkStatus> {
    await this.until(() => this.link.status.state === state)
    return this.link.status
  }

  #note(what: string, ..._done: unknown[]): void {
    this.log.push(what)
    for (const resolve of this.#seen.splice(0)) resolve()
  }
}

/** Servers and links of one test, and their end. */
export class Bench {
  readonly clock: FakeClock = new FakeClock()
  readonly probes: Probe[] = []
  readonly servers: FakeServer[] = []
  /** What the links' randomness answers. */
  unit = 0.5

  async server(): Promise<FakeServer> {
    const server = await FakeServer.start()
    this.servers.push(server)
    return server
  }

  link(port: number, options: Partial<ComponentLinkOptions> = {}, more: Partial<ComponentLinkHandlers> = {}): Probe {
    const probe = new Probe(
      {
        host: '127.0.0.1',
        port,
        domain: DOMAIN,
        secret: SECRET,
        instance: { id: 'nonce-a', startedAt: 5_000 },
        clock: this.clock,
        random: () => this.unit,
        ...options,
      },
      more,
    )
    this.probes.push(probe)
    return probe
  }

  /** A link that is up, and the server's side of it. */
  async upLink(
    server: FakeServer,
    options: Partial<ComponentLinkOptions> = {},
    more: Partial<ComponentLinkHandlers> = {},
  ): Promise<Probe> {
    const probe = this.link(server.port, options, more)
    probe.link.start()
    await probe.untilState('up')
    return probe
  }

  /** Resolves when everything that was written, both ways, has arrived. */
  async settled(): Promise<void> {
    const peers = (): FakeServer['peers'] => this.servers.flatMap((server) => server.peers)
    const sum = (numbers: number[]): number => numbers.reduce((total, each) => total + each, 0)
    const isSettled = (): boolean =>
      sum(this.probes.map(({ link }) => link.counters.stanzasOut)) ===
        sum(peers().map((peer) => peer.stanzas.length)) &&
      sum(this.probes.map(({ link }) => link.counters.bytesIn)) === sum(peers().map((peer) => peer.socket.bytesWritten))
    do await new Promise<void>((resolve) => setImmediate(resolve))
    while (!isSettled())
  }

  /** Ends everything. The number of timers that the links left behind. */
  async end(): Promise<number> {
    for (const server of this.servers) for (const peer of server.peers) peer.socket.destroy()
    await Promise.all(this.probes.map((probe) => probe.link.close()))
    await Promise.all(this.servers.map((server) => server.stop()))
    return this.clock.pending
  }
}

/** A message out of a queue. */
export function message(id: string, text = 'hello', to = 'bob@localhost/phone'): XmlElement {
  return stanza('message', { from: DOMAIN, to, id }, [element('body', 'jabber:client', undefined, [text])])
}
