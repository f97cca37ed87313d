/** Reads whatever of `xmq:queue:1` stands in an example, strictly: an item that only its own reader would forgive is an error. */
import {
  childElements,
  decodeAlive,
  decodeBrowse,
  decodeBrowsePage,
  decodeCall,
  decodeCancel,
  decodeConsume,
  decodeDeadLetterOrder,
  decodeDeadLetterOutcome,
  decodeDeliver,
  decodeForget,
  decodeProgress,
  decodePublish,
  decodePublished,
  decodeReceived,
  decodeRenew,
  decodeRenewed,
  decodeSettle,
  decodeSettled,
  decodeStats,
  decodeStatsQuery,
  findChild,
  isResubscribe,
  NS_COMMAND,
  NS_QUEUE,
  NS_TOPIC,
  textOf,
  type XmlElement,
} from '@xmq/protocol'

function assertRead(results: readonly { readonly ok: boolean }[]): void {
  if (results.length === 0 || !results.every((result) => result.ok)) throw new Error(JSON.stringify(results))
}

function readDeadLetters(root: XmlElement, type: string): void {
  if (type === 'get') decodeBrowse(root)
  else if (type === 'set') decodeDeadLetterOrder(root)
  else if (root.attrs.has('done')) decodeDeadLetterOutcome(root)
  else if (decodeBrowsePage(root).items.length === 0) throw new Error('an empty page')
}

function readSettled(stanza: XmlElement, settle: XmlElement, type: string): void {
  const results = type === 'result' ? decodeReceived(stanza) : decodeSettle(settle)
  const said = childElements(settle).map((child) => (child.name === 'acks' ? textOf(child).split('\n').length : 1))
  if (results.length !== said.reduce((sum, count) => sum + count, 0)) throw new Error('not all')
  assertRead(results)
}

/** @throws when a codec does not take it */
export function readReliable(stanza: XmlElement): void {
  const type = stanza.attrs.get('type') ?? ''
  const command = findChild(stanza, 'xmq', NS_COMMAND)
  const xmq = findChild(stanza, 'xmq', NS_TOPIC)
  if (command !== undefined) decodeConsume(command)
  if (xmq !== undefined) decodeCall(xmq)
  for (const child of stanza.children) {
    if (typeof child === 'string' || child.ns !== NS_QUEUE) continue
    readers[child.name]?.(child, type, stanza)
    if (child.name !== 'instance' && readers[child.name] === undefined) throw new Error(`<${child.name}> is new here`)
  }
}

const readers: Readonly<Record<string, (root: XmlElement, type: string, stanza: XmlElement) => void>> = {
  publish: (root) => assertRead(decodePublish(root)),
  published: (root) => {
    if (decodePublished(root).items.includes(undefined)) throw new Error('an answer cannot be read')
  },
  renew: decodeRenew,
  renewed: decodeRenewed,
  resubscribe: (_, __, stanza) => {
    if (!isResubscribe(stanza)) throw new Error('no resubscribe')
  },
  alive: decodeAlive,
  forget: decodeForget,
  deliver: (root) => assertRead(decodeDeliver(root).items),
  settle: (root, type, stanza) => readSettled(stanza, root, type),
  settled: decodeSettled,
  progress: decodeProgress,
  cancel: decodeCancel,
  browse: (root, type) => {
    if (type === 'get') decodeBrowse(root)
    else decodeBrowsePage(root)
  },
  'dead-letters': readDeadLetters,
  stats: (root, type) => {
    if (type === 'get') decodeStatsQuery(root)
    else decodeStats(root)
  },
}
