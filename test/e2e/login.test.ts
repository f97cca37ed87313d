/** Logging in with the SDK's own mechanisms. The password has no emoji: ejabberd registers none that Unicode 3.2 lacks. */
import { type AddressInfo, connect as connectSocket, createServer } from 'node:net'
import { connect } from '@xmq/client'
import { expect, test } from 'vitest'
import { fresh, onEachServer, QUEUES, type Stage } from './stage.ts'

const PASSWORD = 'pässwörd €漢'

/** Stands before a server, and lets it offer PLAIN alone. */
async function startPlainFront(stage: Stage): Promise<string> {
  const { hostname, port } = new URL(stage.server.service)
  const front = createServer((socket) => {
    const onward = connectSocket(Number(port), hostname)
    socket.pipe(onward)
    onward.on('data', (chunk: Buffer) => {
      socket.write(chunk.toString().replace(/<mechanism>(?!PLAIN<)[^<]*<\/mechanism>/g, ''))
    })
    for (const end of [socket, onward]) {
      end.on('error', () => {})
      end.on('close', () => void (socket.destroy(), onward.destroy()))
    }
  })
  await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve))
  stage.afterwards(() => new Promise((resolve) => front.close(resolve)))
  return `xmpp://127.0.0.1:${(front.address() as AddressInfo).port}`
}

onEachServer(
  'a login',
  (stage) => {
    test.each(['SCRAM', 'PLAIN'])('takes a password beyond ASCII by %s, and no other', async (way) => {
      const user = fresh('zoe')
      await stage.server.register(user, PASSWORD)
      const service = way === 'SCRAM' ? stage.server.service : await startPlainFront(stage)
      const mechanisms: unknown[] = []
      const debug = (line: string): void => {
        const mechanism = /<auth [^>]*mechanism=["']([^"']*)/.exec(line)?.[1]
        if (mechanism !== undefined) mechanisms.push(mechanism)
      }
      const options = { service, jid: `${user}@${stage.server.domain}`, queue: QUEUES.any, debug }
      const client = stage.closing(await connect({ ...options, password: PASSWORD }))
      expect(client.status.state).toBe('online')
      expect(mechanisms).toEqual([expect.stringMatching(`^${way}`)])
      await expect(connect({ ...options, password: 'another' })).rejects.toMatchObject({
        code: 'not-authorized',
        message: expect.stringMatching(`refused the password of ${user}@.*The server says: ".+"$`),
      })
    })
  },
  { hasBroker: false },
)
