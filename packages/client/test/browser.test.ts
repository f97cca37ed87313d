/** A bundle as users make it, without a flag: what is in it, and that it works with a browser's globals alone. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createContext, runInContext } from 'node:vm'
import { build } from 'esbuild'
import { beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { afterTest, deferred, type Setting, startSetting } from './setting.ts'

/** A page's program: a worker and a producer, one request, and what came of it to `tell`. */
const PROGRAM = `
  import { connect, defineTopic, Worker } from '../src/index.ts'
  const { service, password, tell } = globalThis.setting
  const greet = defineTopic('greet', { encoding: 'text' })
  const options = { service, password, queue: 'queue1.localhost' }
  const run = async () => {
    const worker = new Worker({ ...options, jid: 'w1@localhost' }).handle(greet, (name) => 'hello ' + name)
    await worker.start()
    const mq = await connect({ ...options, jid: 'shop@localhost' })
    const answer = await mq.request(greet, 'über 🦄')
    await mq.close()
    await worker.stop()
    return answer
  }
  run().then(tell, (error) => tell(error.message))
`
/** What is not ECMAScript's own, and one realm's bytes. No process, no Buffer, no require. */
const BROWSER_GLOBALS = {
  AbortController,
  AbortSignal,
  ArrayBuffer,
  atob,
  btoa,
  clearInterval,
  clearTimeout,
  console,
  crypto,
  performance,
  queueMicrotask,
  setInterval,
  setTimeout,
  TextDecoder,
  TextEncoder,
  Uint8Array,
  URL,
  WebSocket,
}
const PASSWORD = 'pässwörd'
const ACCOUNTS = { accounts: { shop: PASSWORD, w1: PASSWORD } }
let bundle = ''
let bundled: readonly string[] = []

beforeAll(async () => {
  const result = await build({
    stdin: { contents: PROGRAM, resolveDir: import.meta.dirname, loader: 'js' },
    bundle: true,
    platform: 'browser',
    // The sources in place of what is built: the one thing that users do not set.
    conditions: ['@xmq/source'],
    format: 'iife',
    write: false,
    metafile: true,
    logLevel: 'silent',
  })
  expect(result.warnings).toEqual([])
  bundle = result.outputFiles[0]?.text ?? ''
  bundled = Object.keys(result.metafile.inputs)
})

function serviceOf(setting: Setting): string {
  return setting.dev.server.websocketUrl ?? ''
}

describe('a bundle for browsers', () => {
  it('has nothing of Node, and nothing that would need it', () => {
    const ours = bundled.filter((path) => path.includes('client/src/platform/'))
    expect(ours.filter((path) => !/\/(stop-signal-)?browser\.ts$/.test(path))).toEqual([])
    expect(ours).toHaveLength(2)
    for (const unwanted of ['node_modules/ws/', '@xmpp/resolve', '@xmpp/tcp', '@xmpp/tls', '@xmpp/client/']) {
      expect(bundled.filter((path) => path.includes(unwanted))).toEqual([])
    }
    expect(bundle).not.toMatch(/from ?"node:|require\("(node:|net|tls|dns)/)
  })

  it('works with the globals of a browser and no others, logging in with SCRAM', async () => {
    const setting = await startSetting({ server: ACCOUNTS })
    const told = deferred<unknown>()
    const page = createContext({
      setting: { service: serviceOf(setting), password: PASSWORD, tell: told.resolve },
      ...BROWSER_GLOBALS,
    })
    runInContext(bundle, page)
    expect(await told.promise).toBe('hello über 🦄')
  })

  const chromium = ['chromium', 'chromium-browser', 'google-chrome'].find(
    (name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0,
  )

  // Extra proof where a browser happens to be: nothing installs one.
  it.skipIf(chromium === undefined)('works in Chromium', { timeout: 60_000 }, async () => {
    const setting = await startSetting({ server: ACCOUNTS })
    const told = deferred<string>()
    const port = await servePage(serviceOf(setting), told.resolve)
    await browse(chromium ?? '', `http://127.0.0.1:${port}/`)
    expect(await told.promise).toBe('hello über 🦄')
  })
})

/** A page with the bundle, which posts what came of it. */
async function servePage(service: string, tell: (text: string) => void): Promise<number> {
  const setting = `{ service: '${service}', password: '${PASSWORD}', tell: (text) => fetch('/told', { method: 'POST', body: String(text) }) }`
  const html = `<!doctype html><meta charset="utf-8"><script>globalThis.setting = ${setting}</script><script src="/bundle.js"></script>`
  const server = createServer((request, response) => {
    if (request.url === '/told') {
      let text = ''
      request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      request.on('end', () => {
        response.end()
        tell(text)
      })
      return
    }
    const isScript = request.url === '/bundle.js'
    response.setHeader('content-type', `${isScript ? 'text/javascript' : 'text/html'}; charset=utf-8`)
    response.end(isScript ? bundle : html)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  afterTest(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return (server.address() as AddressInfo).port
}

async function browse(command: string, url: string): Promise<void> {
  const profile = await mkdtemp(join(tmpdir(), 'xmq-browser-'))
  const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', `--user-data-dir=${profile}`]
  const browser: ChildProcess = spawn(command, [...flags, url], { stdio: 'ignore' })
  const gone = new Promise((resolve) => browser.once('exit', resolve))
  afterTest(async () => {
    browser.kill('SIGKILL')
    await gone
    await rm(profile, { recursive: true, force: true, maxRetries: 5 })
  })
}
