/** What the tests use of xmpp.js, which has no types of its own. */
declare module '@xmpp/client' {
  export interface Element {
    readonly name: string
    readonly attrs: Readonly<Record<string, string | undefined>>
    getChildText(name: string): string | null
  }
  export interface Client {
    isSecure(): boolean
    start(): Promise<{ toString(): string }>
    stop(): Promise<unknown>
    send(element: Element): Promise<void>
    on(event: 'send' | 'stanza', listener: (element: Element) => void): void
    on(event: 'error', listener: (error: Error & { condition?: string }) => void): void
    readonly reconnect: { stop(): void }
    readonly iqCaller: { request(iq: Element): Promise<Element> }
  }
  export interface ClientOptions {
    service: string
    domain?: string
    username?: string
    password?: string
    resource?: string
    credentials?: (
      authenticate: (credentials: object, mechanism: string) => Promise<void>,
      mechanisms: string[],
    ) => Promise<void>
  }
  export function client(options: ClientOptions): Client
  export function xml(name: string, attrs: object, ...children: (Element | string)[]): Element
}
