/**
 * What the server itself answers: IQs to its domains, and to accounts on their behalf. Pure: a request in, an answer out.
 * Rosters and carbons are answered as if they were there and empty, so that ordinary clients go on.
 */
import {
  element,
  NS_CARBONS,
  NS_DISCO_INFO,
  NS_DISCO_ITEMS,
  NS_PING,
  NS_SESSION,
  NS_VERSION,
  onlyChild,
  resultTo,
  type XmlElement,
} from '@xmq/protocol'
import { SERVICE_UNAVAILABLE, serverErrorTo } from './stanza-errors.ts'

const NS_ROSTER = 'jabber:iq:roster'

/** Answers an IQ to the server's domain; `items` are the services that disco#items lists. */
export function answerDomainIq(iq: XmlElement, items: readonly string[]): XmlElement | undefined {
  const child = onlyChild(iq)
  const type = iq.attrs.get('type')
  if (type === 'result' || type === 'error') return undefined
  if (child?.ns === NS_PING && child.name === 'ping' && type === 'get') return resultTo(iq)
  if (child?.ns === NS_SESSION && type === 'set') return resultTo(iq)
  if (child?.ns === NS_DISCO_INFO && type === 'get') {
    return resultTo(iq, [
      element('query', NS_DISCO_INFO, undefined, [
        element('identity', NS_DISCO_INFO, { category: 'server', type: 'im', name: 'XMQ embedded server' }),
        ...[NS_DISCO_INFO, NS_DISCO_ITEMS, NS_PING, NS_VERSION].map((ns) =>
          element('feature', NS_DISCO_INFO, { var: ns }),
        ),
      ]),
    ])
  }
  if (child?.ns === NS_DISCO_ITEMS && type === 'get') {
    const children = items.map((jid) => element('item', NS_DISCO_ITEMS, { jid }))
    return resultTo(iq, [element('query', NS_DISCO_ITEMS, undefined, children)])
  }
  if (child?.ns === NS_VERSION && type === 'get') {
    const name = element('name', NS_VERSION, undefined, ['XMQ embedded server'])
    return resultTo(iq, [
      element('query', NS_VERSION, undefined, [name, element('version', NS_VERSION, undefined, ['0'])]),
    ])
  }
  return serverErrorTo(iq, SERVICE_UNAVAILABLE)
}

/** Answers an IQ to an account's bare JID; `isOwner` when one of the account's own sessions asks. */
export function answerAccountIq(iq: XmlElement, isOwner: boolean): XmlElement | undefined {
  const child = onlyChild(iq)
  const type = iq.attrs.get('type')
  if (type === 'result' || type === 'error') return undefined
  if (isOwner && child !== undefined) {
    if (child.ns === NS_ROSTER) return resultTo(iq, type === 'get' ? [element('query', NS_ROSTER)] : [])
    if (child.ns === NS_CARBONS || child.ns === NS_SESSION) return resultTo(iq)
    if (child.ns === NS_PING && type === 'get') return resultTo(iq)
    if (child.ns === NS_DISCO_INFO && type === 'get') {
      const identity = element('identity', NS_DISCO_INFO, { category: 'account', type: 'registered' })
      return resultTo(iq, [element('query', NS_DISCO_INFO, undefined, [identity])])
    }
  }
  return serverErrorTo(iq, SERVICE_UNAVAILABLE)
}
