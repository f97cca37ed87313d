/** Links without a server, for tests of the runtime. */
import type { XmlElement, XmqError } from '@xmq/protocol'
import type { ComponentLink, ComponentLinkHandlers, ComponentLinkOptions, LinkStatus } from '../src/component.ts'

export class FakeLink implements ComponentLink {
  readonly options: ComponentLinkOptions
  readonly handlers: ComponentLinkHandlers
  readonly sent: XmlElement[] = []
  status: LinkStatus = { state: 'connecting' }
  outboundBytes = 0
  congested = false
  isStarted = false
  constructor(options: ComponentLinkOptions, handlers: ComponentLinkHandlers) {
    this.options = options
    this.handlers = handlers
  }
  get domain(): string {
    return this.options.domain
  }
  get counters() {
    return {
      stanzasIn: 0,
      stanzasOut: this.sent.length,
      bytesIn: 0,
      bytesOut: 0,
      dropped: 0,
      ignored: 0,
      reconnects: 2,
    }
  }
  start(): void {
    this.isStarted = true
  }
  send(stanza: XmlElement): void {
    this.sent.push(stanza)
  }
  flush(): void {}
  inputDelayMs = 0
  probes = 0
  probe(): void {
    this.probes++
  }

  paused(): void {}
  receiveMisrouted(): void {}
  close(): Promise<void> {
    if (this.status.state === 'closed') return Promise.resolve()
    const wasUp = this.status.state === 'up'
    this.#enter({ state: 'closed' })
    if (wasUp) this.handlers.onDown(new Error('closed') as XmqError)
    return Promise.resolve()
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
  up(): void {
    this.#enter({ state: 'up', since: 0 })
    this.handlers.onUp()
  }
  down(reason: XmqError, hint?: string): void {
    const wasUp = this.status.state === 'up'
    this.#enter({ state: 'down', reason, retryAt: 0, ...(hint === undefined ? {} : { hint }) })
    if (wasUp) this.handlers.onDown(reason)
  }
  #enter(status: LinkStatus): void {
    this.status = status
    this.handlers.onStatus(status)
  }
}

/** Makes links and remembers them. */
export function fakeLinks() {
  const links: FakeLink[] = []
  const createLink = (options: ComponentLinkOptions, handlers: ComponentLinkHandlers) => {
    const link = new FakeLink(options, handlers)
    links.push(link)
    return link
  }
  return { links, createLink }
}
