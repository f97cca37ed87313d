/**
 * What the codecs of xmq:queue:1 cost, step by step, without sockets and without a store: items a second on one core.
 *
 *     node bench/queue-codec.mjs [--items 100] [--ms 300]          # items a batch, milliseconds a step
 *
 * Needs a build. The reader's share is measured by itself, since every stanza pays it whatever stands inside.
 */
import * as xmq from '@xmq/protocol'
import { startOptions } from './usage.mjs'

const { items: BATCH, ms: STEP_MS } = startOptions(
  { items: { type: 'string', default: '100' }, ms: { type: 'string', default: '300' } },
  { positive: ['items', 'ms'] },
)

const json = JSON.stringify({
  url: 'https://example.org/a/cat.png',
  width: 640,
  tags: ['a', 'b'],
  note: 'x'.repeat(110),
})
const base64 = 'QUJDREVGRw=='.repeat(16).slice(0, 200)
const token = '5e0d6c1c9a6b4c7e8d0a3b6f2c4e8a10'
const from = 'producer@localhost/9f1c2d'

function read(text) {
  let found
  const reader = new xmq.XmlStreamReader({
    onOpen() {},
    onElement: (root) => (found = root),
    onSkipped() {},
    onClose() {},
  })
  reader.reset(xmq.NS_CLIENT)
  reader.write(text)
  return found
}

const iq = (type, child) => xmq.stanza('iq', { type, id: token, from: 'a@localhost/1', to: 'jobs.localhost' }, [child])

function measure(name, step) {
  for (let i = 0; i < 30; i++) step()
  let rounds = 0
  const start = performance.now()
  while (performance.now() < start + STEP_MS) {
    step()
    rounds++
  }
  const seconds = (performance.now() - start) / 1000
  const rate = (rounds * BATCH) / seconds
  console.log(
    `  ${name.padEnd(52)} ${Math.round(rate / 1000)
      .toString()
      .padStart(7)}k items/s  ${(1e6 / rate).toFixed(2)} us`,
  )
}

function run(name, payloadOf, codec) {
  console.log(`${name}, ${BATCH} items a stanza, encoding ${codec.encoding ?? 'xml'}`)
  const seqs = Array.from({ length: BATCH }, (_, n) => n + 1)
  const publish = () =>
    xmq.writeElement(
      iq(
        'set',
        xmq.encodePublish(
          seqs.map((n) =>
            codec.writePublishItem({
              id: `${token}-${n}`,
              topic: 'images.thumbnail',
              priority: 0,
              delayMs: 0,
              content: xmq.createContent({ payload: [payloadOf()] }),
            }),
          ),
        ),
      ),
    )
  const published = publish()
  console.log(`  ${published.length} characters`)
  measure('producer: elements to the text of <publish/>', publish)
  measure('broker: reader', () => read(published))
  const publishElement = read(published).children[0]
  measure('broker: decodePublish, text for the store', () =>
    xmq.decodePublish(publishElement).map((result) => xmq.storedText(result.item.content, from)),
  )
  const confirm = () =>
    xmq.writeElement(
      iq(
        'result',
        xmq.encodePublished(
          {
            durability: 'disk',
            items: seqs.map((seq) => ({ status: 'stored', id: `${token}-${seq}`, seq, duplicate: false })),
          },
          codec.encoding !== undefined,
        ),
      ),
    )
  measure('broker: <published/> to text', confirm)
  const confirmElement = read(confirm()).children[0]
  measure('producer: decodePublished', () => xmq.decodePublished(confirmElement))
  const stored = xmq.decodePublish(publishElement).map((result) => xmq.storedText(result.item.content, from))
  const deliver = () =>
    xmq.writeElement(
      iq(
        'set',
        xmq.encodeDeliver(
          30_000,
          stored.map((text, n) => {
            const { content, from: producer } = xmq.restoreContent(text)
            return codec.writeDeliveredItem({
              lease: `${n + 1}.${token}`,
              seq: n + 1,
              id: `${token}-${n}`,
              topic: 'images.thumbnail',
              from: producer,
              at: 1_790_000_000_000 + n,
              attempt: 1,
              failures: 0,
              content,
            })
          }),
        ),
      ),
    )
  const delivered = deliver()
  measure('broker: stored text to the text of <deliver/>', deliver)
  measure('worker: reader', () => read(delivered))
  const deliverElement = read(delivered).children[0]
  measure('worker: decodeDeliver, payloads', () =>
    xmq.decodeDeliver(deliverElement).items.map((result) => xmq.payloadOf(result.item.content.payload)),
  )
  const settle = () =>
    xmq.writeElement(
      iq(
        'set',
        codec.encoding === undefined
          ? xmq.encodeSettle(seqs.map((seq) => xmq.writeSettlement({ kind: 'ack', lease: `${seq}.${token}` })))
          : xmq.encodeSettle([], { acked: seqs.map((seq) => `${seq}.${token}`) }),
      ),
    )
  measure('worker: acks to text', settle)
  const settleElement = read(settle()).children[0]
  measure('broker: decodeSettle', () => xmq.decodeSettle(settleElement))
}

for (const codec of [xmq.XML_ITEMS, xmq.PACKED_ITEMS]) {
  run('JSON of 200 bytes', () => xmq.encodeJson(json), codec)
  run('base64 text of 200 bytes', () => xmq.element('body', xmq.NS_CLIENT, undefined, [base64]), codec)
}
