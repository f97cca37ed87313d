/** docs/protocol-reliable.md "Packed items": who gets them, and that they mean what elements mean. */
import {
  childElements,
  createContent,
  encodeJson,
  encodePublish,
  PACKED_ITEMS,
  type PublishItem,
  textOf,
  writeElement,
  type XmlElement,
} from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import { RELIABLE_DEFAULTS } from '../../src/core/index.ts'
import { queueRules } from './conversation.ts'
import { StoreWorld } from './store-world.ts'

const A = 'a@localhost/1'
const B = 'b@localhost/1'
const SHOP = 'shop@localhost/1'

const start = () => StoreWorld.start({ queues: [queueRules('any.localhost')] })

const item = (id: string, more: Partial<PublishItem> = {}): PublishItem => ({
  id,
  topic: 't',
  priority: 0,
  delayMs: 0,
  content: createContent({ payload: [encodeJson('{"a":"<&>"}')] }),
  ...more,
})

async function publishPacked(world: StoreWorld, ...items: PublishItem[]): Promise<string> {
  const publish = encodePublish(items.map((one) => PACKED_ITEMS.writePublishItem(one)))
  await world.receive(`<iq type='set' id='pub' from='${SHOP}' to='any.localhost'>${writeElement(publish)}</iq>`)
  return world.take(SHOP).map((stanza) => writeElement(stanza))[0] as string
}

async function sub(world: StoreWorld, worker: string, encoding: string | undefined, credit = 10): Promise<void> {
  const attr = encoding === undefined ? '' : ` encoding='${encoding}'`
  await world.receive(
    `<iq type='set' id='sub' from='${worker}' to='any.localhost'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='600' load='0'><consume xmlns='xmq:queue:1' credit='${credit}'${attr}/></xmq></iq>`,
  )
  await world.pong(worker)
  world.take()
}

const written = (world: StoreWorld, to: string) => world.take(to).map((stanza) => writeElement(stanza))

describe('packed items', () => {
  it('are confirmed in one text, in their order', async () => {
    const w = await start()
    expect(await publishPacked(w, item('1'), item('2'), item('1'))).toContain(
      "<published xmlns='xmq:queue:1' durability='memory' epoch='r1.1' encoding='packed'>1 2 1d</published>",
    )
    expect(w.counts().ready).toBe(2)
  })

  it('are answered one by one where one of them is refused', async () => {
    const w = await start()
    await publishPacked(w, item('1'))
    const other = item('1', { content: createContent({ payload: [encodeJson('2')] }) })
    const answer = await publishPacked(w, item('2'), other)
    expect(answer).toContain("<item id='2' seq='2'/><item id='1'><error")
    expect(answer).toContain("code='conflict'")
  })

  it('are duplicates of what came as elements, and the other way round', async () => {
    const w = await start()
    const element = (id: string) =>
      `<item id='${id}' topic='t'><json xmlns='urn:xmpp:json:0'>{"a":"&lt;&amp;&gt;"}</json></item>`
    await publishPacked(w, item('1'))
    expect(await w.publish(element('1'))).toContain("seq='1' duplicate='true'")
    await w.publish(element('2'))
    expect(await publishPacked(w, item('2'))).toContain('>2d</published>')
  })

  it('are handed out to whom said that it takes them, and as elements to everybody else', async () => {
    const w = await start()
    await sub(w, A, 'packed', 1)
    await sub(w, B, undefined, 1)
    await publishPacked(w, item('1'), item('2'))
    const [toA] = written(w, A)
    const [toB] = written(w, B)
    expect(toA).toMatch(
      /<deliver xmlns='xmq:queue:1' lease-seconds='30' encoding='packed'>[^\t<]+\t\d\t\d\tt\tshop@localhost\/1\t1000000\t1\t\t\tj{"a":"&lt;&amp;&gt;"}\n<\/deliver>/,
    )
    expect(toB).toMatch(
      /<deliver xmlns='xmq:queue:1' lease-seconds='30'><item lease='[^']+' seq='\d' .*<json xmlns='urn:xmpp:json:0'>{"a":"&lt;&amp;&gt;"}<\/json><\/item><\/deliver>/,
    )
  })

  it('of an encoding that the broker does not know are handed out as elements', async () => {
    const w = await start()
    await sub(w, A, 'zip')
    await publishPacked(w, item('1'))
    expect(written(w, A)[0]).toContain('<item lease=')
  })

  it('are acked in one text, with the answer to them', async () => {
    const w = await start()
    await sub(w, A, 'packed')
    await publishPacked(w, item('1'), item('2'))
    const [deliver] = w.take(A)
    const text = textOf(childElements(deliver as XmlElement)[0] as XmlElement)
    const leases = text
      .trimEnd()
      .split('\n')
      .map((line) => line.split('\t')[0])
    expect(leases).toHaveLength(2)
    await w.receive(
      `<iq type='result' id='${deliver?.attrs.get('id')}' from='${A}' to='any.localhost'><settle xmlns='xmq:queue:1'><acks>${leases.join('\n')}</acks></settle></iq>`,
    )
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })

  it('that wait since an earlier sub are not mixed with what was written after a later one', async () => {
    const reliable = { ...RELIABLE_DEFAULTS, unreceivedMax: 1 }
    const w = await StoreWorld.start({ queues: [queueRules('any.localhost', { reliable })] })
    await sub(w, A, 'packed')
    await publishPacked(w, item('1'))
    const got: string[] = []
    const take = async () => {
      const [deliver] = w.take(A)
      got.push(writeElement(deliver as XmlElement))
      await w.receive(`<iq type='result' id='${deliver?.attrs.get('id')}' from='${A}' to='any.localhost'/>`)
    }
    await publishPacked(w, item('2'))
    const encoding = `<consume xmlns='xmq:queue:1' credit='10'/>`
    await w.receive(
      `<iq type='set' id='sub' from='${A}' to='any.localhost'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='600' load='0'>${encoding}</xmq></iq>`,
    )
    w.stanzas = w.stanzas.filter((stanza) => stanza.attrs.get('type') === 'set')
    await publishPacked(w, item('3'))
    for (let n = 0; n < 3; n++) await take()
    expect(got.map((xml) => xml.includes("encoding='packed'"))).toEqual([true, true, false])
    expect(got.map((xml) => /shop@localhost/g.exec(xml)?.length)).toEqual([1, 1, 1])
  })
})
