/** What the broker tells about itself: XEP-0030, XEP-0128, XEP-0092, XEP-0199. docs/protocol.md "Discovery". */
import {
  element,
  FEATURE_PACKED,
  findChild,
  isPing,
  NS_COMMAND,
  NS_DATA_FORM,
  NS_DISCO_INFO,
  NS_DISCO_ITEMS,
  NS_PING,
  NS_QUEUE,
  NS_TOPIC,
  NS_VERSION,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import type { CoreRules } from './port.ts'
import type { Place } from './queues.ts'
import type { Queue } from './records.ts'

/** FORM_TYPE of the form in a queue's disco#info. */
const QUEUE_FORM_TYPE = 'xmq:queue:1#info'

const DOMAIN_FEATURES = [NS_DISCO_INFO, NS_DISCO_ITEMS, NS_PING, NS_VERSION]
const QUEUE_FEATURES = [...DOMAIN_FEATURES, NS_COMMAND, NS_TOPIC, NS_QUEUE, FEATURE_PACKED]

/**
 * The content of the result to a question about the broker, or `undefined` when the IQ is none.
 * @throws XmqError `not-found` about a disco node, of which there are none
 */
export function describe(iq: XmlElement, place: Place, rules: CoreRules): XmlElement[] | undefined {
  if (iq.attrs.get('type') !== 'get') return undefined
  if (isPing(iq)) return []
  if (findChild(iq, 'query', NS_VERSION)) return [version(rules)]
  const info = findChild(iq, 'query', NS_DISCO_INFO)
  const items = findChild(iq, 'query', NS_DISCO_ITEMS)
  const node = (info ?? items)?.attrs.get('node')
  if (node !== undefined && node !== '') {
    throw new XmqError('not-found', `${place.address} has no disco nodes; leave the attribute 'node' out.`)
  }
  if (info !== undefined) return [describeInfo(place, rules)]
  return items === undefined ? undefined : [describeItems(place)]
}

function version(rules: CoreRules): XmlElement {
  return element('query', NS_VERSION, undefined, [
    element('name', NS_VERSION, undefined, [rules.software.name]),
    element('version', NS_VERSION, undefined, [rules.software.version]),
  ])
}

function describeInfo({ queue, address }: Place, { durability }: CoreRules): XmlElement {
  // The registrar has nothing closer than component/generic: pubsub/service would promise XEP-0060.
  const name = queue === undefined ? 'XMQ' : `XMQ queue ${address} (${queue.rules.type})`
  const features = queue === undefined ? DOMAIN_FEATURES : QUEUE_FEATURES
  return element('query', NS_DISCO_INFO, undefined, [
    element('identity', NS_DISCO_INFO, { category: 'component', type: 'generic', name }),
    ...features.map((feature) => element('feature', NS_DISCO_INFO, { var: feature })),
    queue === undefined ? undefined : form(queue, durability),
  ])
}

/** The queues in a domain, but for the domain itself; a queue that is a node has no items. */
function describeItems({ domain, address }: Place): XmlElement {
  const queues = address === domain.name ? domain.queues.filter((queue) => queue.address !== address) : []
  return element(
    'query',
    NS_DISCO_ITEMS,
    undefined,
    queues.map((queue) =>
      element('item', NS_DISCO_ITEMS, { jid: queue.address, name: `XMQ queue (${queue.rules.type})` }),
    ),
  )
}

function form({ rules, domain }: Queue, durability: string): XmlElement {
  const { leaseMs, maxAttempts, lengthMax, bytesMax, dedupeMs } = rules.reliable
  const fields: [string, string | undefined][] = [
    ['type', rules.type],
    ['durability', durability],
    ['payload-bytes-max', String(rules.payloadBytesMax)],
    ['ttl-seconds-max', String(rules.ttlSecondsMax)],
    ['request-timeout-ms', String(rules.requestTimeoutMs)],
    ['topics-max', String(rules.topicsMax)],
    ['subscriptions-per-jid-max', String(rules.subscriptionsPerJidMax)],
    ['lease-ms', String(leaseMs)],
    ['attempts-max', String(maxAttempts)],
    ['length-max', String(lengthMax)],
    ['bytes-max', String(bytesMax)],
    ['dedupe-ms', String(dedupeMs)],
    ['epoch', domain.epoch],
  ]
  return element('x', NS_DATA_FORM, { type: 'result' }, [
    field('FORM_TYPE', QUEUE_FORM_TYPE, 'hidden'),
    ...fields.map(([name, value]) => (value === undefined ? undefined : field(name, value))),
  ])
}

function field(name: string, value: string, type?: string): XmlElement {
  return element('field', NS_DATA_FORM, { var: name, type }, [element('value', NS_DATA_FORM, undefined, [value])])
}
