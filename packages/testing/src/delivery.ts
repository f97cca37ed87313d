/** Who of an account's sessions gets a stanza: RFC 6121 section 8.5, by kind, type and address. Pure. */
import type { Jid, XmlElement } from '@xmq/protocol'

/** A session as delivery sees it. */
export interface Resource {
  readonly resource: string
  /** Priority of its last presence, `undefined` while it is not available. */
  readonly priority: number | undefined
}

/** What becomes of a stanza. */
export type Verdict<R extends Resource> =
  | { readonly type: 'deliver'; readonly to: readonly R[] }
  /** The server answers on behalf of the account. */
  | { readonly type: 'account' }
  | { readonly type: 'service-unavailable' }
  | { readonly type: 'drop' }

const DROP = { type: 'drop' } as const
const UNAVAILABLE = { type: 'service-unavailable' } as const

/** Decides for a stanza to an account. @param exists whether there is such an account, or a session of it */
export function decideDelivery<R extends Resource>(
  stanza: XmlElement,
  to: Jid,
  resources: readonly R[],
  exists: boolean,
): Verdict<R> {
  if (to.resource !== '') {
    // 8.5.3.1: a connected resource gets everything, whether it is available or not.
    const match = resources.find((each) => each.resource === to.resource)
    if (match !== undefined) return { type: 'deliver', to: [match] }
  }
  switch (stanza.name) {
    case 'iq':
      return decideIq(stanza, to, exists)
    case 'presence':
      return decidePresence(stanza, to, resources)
    default:
      return decideMessage(stanza, to, resources)
  }
}

function decideIq<R extends Resource>(iq: XmlElement, to: Jid, exists: boolean): Verdict<R> {
  const type = iq.attrs.get('type')
  if (type === 'result' || type === 'error') return DROP
  // 8.5.3.2.3: an IQ to a resource that is not there; 8.5.1: to an account that is not there.
  return to.resource === '' && exists ? { type: 'account' } : UNAVAILABLE
}

function decidePresence<R extends Resource>(presence: XmlElement, to: Jid, resources: readonly R[]): Verdict<R> {
  const type = presence.attrs.get('type')
  if (to.resource !== '' || (type !== undefined && type !== 'unavailable')) return DROP
  return { type: 'deliver', to: resources.filter((each) => each.priority !== undefined) }
}

function decideMessage<R extends Resource>(message: XmlElement, to: Jid, resources: readonly R[]): Verdict<R> {
  const willing = resources.filter((each) => each.priority !== undefined && each.priority >= 0)
  switch (message.attrs.get('type')) {
    case 'error':
      return DROP
    case 'groupchat':
      return UNAVAILABLE
    case 'headline':
      return to.resource === '' ? { type: 'deliver', to: willing } : DROP
    default: {
      // 8.5.3.2.1 and 8.5.2.1.1: chat and normal go to the most available, on real servers to every one that shares the
      // highest priority. Nothing is stored offline here: with nobody there the sender is told.
      const top = Math.max(...willing.map((each) => each.priority ?? 0))
      const best = willing.filter((each) => each.priority === top)
      return best.length === 0 ? UNAVAILABLE : { type: 'deliver', to: best }
    }
  }
}
