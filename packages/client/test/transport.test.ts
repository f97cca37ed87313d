import { type AddressInfo, connect as connectSocket, createServer, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { defineTopic } from '../src/index.ts'
import { afterTest, rejection, startSetting } from './setting.ts'
import { authority, startDirectTlsFront, startTlsFront } from './tls-front.ts'

const note = defineTopic('note', { encoding: 'text' })

describe('TLS', () => {
  it('is started where the server asks for it, checked against the XMPP domain, with the given authority', async () => {
    const setting = await startSetting()
    const front = await startTlsFront(setting.dev.server.port)
    afterTest(() => front.close())
    const service = `xmpp://127.0.0.1:${front.port}`
    const worker = setting.worker({ service, ca: authority, tls: 'required' }).handle(note, (text) => text)
    await worker.start()
    const mq = await setting.connect({ service, ca: [authority] })
    expect(await mq.request(note, 'über 🦄')).toBe('über 🦄')
    expect(front.open()).not.toContain('<auth')
  })

  it('works from the start, as xmpps://', async () => {
    const setting = await startSetting()
    const front = await startDirectTlsFront(setting.dev.server.port)
    afterTest(() => front.close())
    const mq = await setting.connect({ service: `xmpps://127.0.0.1:${front.port}`, ca: authority, tls: 'required' })
    expect(await rejection(mq.request(note, 'a'))).toMatchObject({ code: 'no-recipients' })
  })

  it.each(['xmpp', 'xmpps'])('fails at once on an untrusted certificate, naming the option (%s)', async (scheme) => {
    const setting = await startSetting()
    const { port } = setting.dev.server
    const front = scheme === 'xmpp' ? await startTlsFront(port) : await startDirectTlsFront(port)
    afterTest(() => front.close())
    const error = await rejection(setting.connect({ service: `${scheme}://127.0.0.1:${front.port}` }))
    expect(error).toMatchObject({
      code: 'invalid-config',
      message: expect.stringMatching(/certificate of localhost .* not trusted.*'ca'/),
    })
  })

  it('fails on a certificate for another name', async () => {
    const setting = await startSetting()
    const front = await startTlsFront(setting.dev.server.port)
    afterTest(() => front.close())
    const service = `xmpp://127.0.0.1:${front.port}`
    const error = await rejection(setting.connect({ service, jid: 'shop@example.org', ca: authority }))
    expect(error).toMatchObject({ code: 'invalid-config', message: expect.stringContaining('issued for another name') })
  })

  it('is not given up for a server, or somebody on the way, that offers a password in the clear', async () => {
    const setting = await startSetting()
    const front = await startTlsFront(setting.dev.server.port, 'plain')
    afterTest(() => front.close())
    const error = await rejection(setting.connect({ service: `xmpp://127.0.0.1:${front.port}`, tls: 'required' }))
    expect(error).toMatchObject({ code: 'invalid-config', message: expect.stringContaining('offers no TLS') })
    expect(front.open()).not.toContain('<auth')
  })
})

describe('reading', () => {
  it('puts characters together that were cut between chunks, wherever', async () => {
    const setting = await startSetting()
    // Every byte is a chunk of its own on the way to the client.
    const slow = createServer((socket) => {
      const onward = connectSocket(setting.dev.server.port, '127.0.0.1')
      socket.setNoDelay(true)
      socket.pipe(onward)
      let turn = Promise.resolve()
      onward.on('data', (data: Buffer) => {
        turn = turn.then(() => writeEachByte(socket, data))
      })
      for (const end of [socket, onward]) {
        end.on('error', () => {})
        end.on('close', () => void (socket.destroy(), onward.destroy()))
      }
    })
    await new Promise<void>((resolve) => slow.listen(0, '127.0.0.1', resolve))
    afterTest(() => new Promise((resolve) => slow.close(() => resolve(undefined))))
    const service = `xmpp://127.0.0.1:${(slow.address() as AddressInfo).port}`
    const worker = setting.worker().handle(note, (text) => text)
    await worker.start()
    const mq = await setting.connect({ service })
    const text = 'aé漢🦄\u{10ffff}'.repeat(50)
    expect(await mq.request(note, text)).toBe(text)
    await mq.close()
  })
})

/** One write a byte, each after the one before was taken and a turn of the event loop has passed. */
async function writeEachByte(socket: Socket, data: Buffer): Promise<void> {
  for (const byte of data) {
    if (socket.destroyed) return
    await new Promise<void>((resolve) => socket.write(Buffer.of(byte), () => setImmediate(resolve)))
  }
}
