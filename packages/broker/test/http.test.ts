import { connect } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { serveHttp, type HttpServer, type ReadinessProblem } from '../src/http.ts'

let server: HttpServer | undefined
let problems: readonly ReadinessProblem[] = []

async function get(path: string, init: RequestInit = {}): Promise<Response> {
  server ??= await serveHttp(
    { host: '127.0.0.1', port: 0 },
    {
      problems: () => Promise.resolve(problems),
      metrics: () => Promise.resolve({ contentType: 'text/plain; version=0.0.4', text: 'xmq_topics 1\n' }),
    },
  )
  return fetch(`http://127.0.0.1:${server.address.port}${path}`, init)
}

afterEach(async () => {
  problems = []
  await server?.close()
  server = undefined
})

describe('health over HTTP', () => {
  it('/healthz is 200 while the process serves, ready or not', async () => {
    problems = [{ what: 'store', why: 'disk full' }]
    const response = await get('/healthz')
    expect([response.status, await response.json()]).toEqual([200, { status: 'ok' }])
  })

  it('/readyz is 200 when nothing is amiss', async () => {
    const response = await get('/readyz')
    expect([response.status, await response.json()]).toEqual([200, { ready: true }])
  })

  it('/readyz is 503 with a list of what is not ready', async () => {
    problems = [{ what: 'link q.localhost', why: 'connection refused' }]
    const response = await get('/readyz?verbose')
    expect([response.status, await response.json()]).toEqual([503, { ready: false, problems }])
  })

  it('/readyz says a hint once that several problems share', async () => {
    const hint = 'Is the server running?'
    problems = ['a.localhost', 'b.localhost'].map((domain) => ({ what: `link ${domain}`, why: 'Refused.', hint }))
    expect(await (await get('/readyz')).json()).toEqual({
      ready: false,
      problems: problems.map(({ what, why }) => ({ what, why })),
      hints: [hint],
    })
  })

  it('/metrics is the text of Prometheus', async () => {
    const response = await get('/metrics')
    expect(response.headers.get('content-type')).toContain('text/plain')
    expect(await response.text()).toBe('xmq_topics 1\n')
  })

  it('anything else is 404, and says what there is', async () => {
    const response = await get('/')
    expect(response.status).toBe(404)
    expect(await response.text()).toContain('/healthz')
  })

  it('anything but reading is 405', async () => {
    const response = await get('/metrics', { method: 'POST', body: 'x' })
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
  })

  it('a head over the bound is refused', async () => {
    const response = await get('/healthz', { headers: { 'x-long': 'x'.repeat(10_000) } })
    expect(response.status).toBe(431)
  })

  it('an address that is taken is named, with the way to mend it', async () => {
    await get('/healthz')
    const { port } = server?.address ?? { port: 0 }
    const sources = { problems: () => Promise.resolve([]), metrics: () => Promise.reject(new Error('no')) }
    await expect(serveHttp({ host: '127.0.0.1', port }, sources)).rejects.toThrow(
      `http: cannot listen on 127.0.0.1:${port}: something else listens there. Stop it, or choose another port.`,
    )
  })

  it('closing ends connections that are kept open', async () => {
    await get('/healthz')
    const socket = connect(server?.address.port ?? 0, '127.0.0.1')
    await new Promise((resolve) => socket.once('connect', resolve))
    const ended = new Promise((resolve) => socket.once('close', resolve))
    await server?.close()
    await ended
  })
})
