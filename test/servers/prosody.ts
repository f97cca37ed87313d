/** Prosody 0.12 in a folder, as any user. */
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { type ServerPlace, type ServerRecipe, startInstalled } from './installed.ts'
import { COMPONENT_DOMAINS, type TestServer, type TestServerOptions, waitUntil } from './server.ts'

const PROGRAMS = ['/usr/bin/prosody', '/usr/local/bin/prosody', '/opt/homebrew/bin/prosody']

/** Where Prosody is, or `undefined`. */
export function findProsody(): string | undefined {
  return PROGRAMS.find((path) => existsSync(path))
}

/** Starts a Prosody of its own. */
export function startProsody(options: TestServerOptions = {}): Promise<TestServer> {
  return startInstalled(RECIPE, options)
}

const RECIPE: ServerRecipe = {
  kind: 'prosody',
  portCount: 3,
  websocketPath: '/xmpp-websocket',
  prepare: async (where, options) => {
    const configPath = join(where.folder, 'prosody.cfg.lua')
    await mkdir(join(where.folder, 'data'), { recursive: true })
    await mkdir(join(where.folder, 'certs'), { recursive: true })
    await writeFile(configPath, configuration(where, options))
    return { command: findProsody() ?? 'prosody', args: ['-F', '--config', configPath] }
  },
  ready: async (where, running) => {
    await waitUntil('Prosody serving', async () => {
      if (!running()) throw new Error('Prosody ended while it started.')
      const open = await Promise.all(where.ports.map(accepts))
      return open.every(Boolean)
    })
    // It goes on without a port that somebody else has; what we reached is then a stranger.
    const log = await readFile(where.logPath, 'utf8')
    if (log.includes('Failed to open server port')) throw new Error('A port of Prosody was taken.')
  },
  // An account is one small file, read at each login: no need for prosodyctl.
  register: async (where, user, password) => {
    const folder = join(where.folder, 'data', where.domain, 'accounts')
    await mkdir(folder, { recursive: true })
    const path = join(folder, `${encodeName(user)}.dat`)
    await writeFile(`${path}.new`, `return {\n\t["password"] = ${lua(password)};\n};\n`)
    await rename(`${path}.new`, path)
  },
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

function encodeName(user: string): string {
  return [...Buffer.from(user)]
    .map((byte) => (/[a-z0-9]/i.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : `%${byte.toString(16)}`))
    .join('')
}

function lua(text: string): string {
  return `"${text.replace(/[\\"]/g, '\\$&').replace(/\n/g, '\\n')}"`
}

/** The rate is written in kilobytes: Prosody takes `b` for ten bytes. It is every client's, but for those that are named. */
function limits({ domain }: ServerPlace, { producerBytes, accounts = {} }: TestServerOptions): string {
  if (producerBytes === undefined) return ''
  const others = Object.keys(accounts).filter((user) => !user.startsWith('producer'))
  const unlimited = others.map((user) => lua(`${user}@${domain}`)).join('; ')
  const rate = `${Math.max(1, Math.round(producerBytes / 1000))}kb/s`
  return `limits = { c2s = { rate = "${rate}"; burst = "1s" } }\nunlimited_jids = { ${unlimited} }`
}

function configuration(where: ServerPlace, options: TestServerOptions): string {
  const [c2sPort, componentPort, httpPort] = where.ports
  const components = (options.componentDomains ?? COMPONENT_DOMAINS).map(
    (domain) => `Component ${lua(domain)}
	component_secret = ${lua(where.secret)}
	validate_from_addresses = ${options.checkFrom ?? true}`,
  )
  return `-- Loopback only, no TLS, no s2s, no rate limits, accounts in this folder.
run_as_root = true -- lets root run it too; ignored for other users
pidfile = ${lua(join(where.folder, 'prosody.pid'))}
data_path = ${lua(join(where.folder, 'data'))}
certificates = ${lua(join(where.folder, 'certs'))}
daemonize = false
log = { { levels = { min = "info" }, to = "file", filename = ${lua(where.logPath)} } }

interfaces = { "127.0.0.1" }
network_settings = { nagle = false } -- as docs/operating.md tells operators: with it a message may wait 40 ms
c2s_ports = { ${c2sPort} }
legacy_ssl_ports = { }
c2s_direct_tls_ports = { }
component_interfaces = { "127.0.0.1" }
component_ports = { ${componentPort} }
http_interfaces = { "127.0.0.1" }
http_ports = { ${httpPort} }
https_ports = { }
http_default_host = ${lua(where.domain)}
modules_disabled = { "s2s" }
plugin_paths = { }

modules_enabled = {
	"disco"; "roster"; "saslauth"; "ping"; "version"; "time"; "carbons"; "mam"; "smacks";
	"presence"; "message"; "iq"; "offline"; "websocket"; "posix"; "blocklist";${options.producerBytes === undefined ? '' : ' "limits";'}
}
${limits(where, options)}
default_archive_policy = true
smacks_hibernation_time = 60
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
consider_websocket_secure = true -- a client may refuse PLAIN over ws:// all the same
authentication = "internal_plain" -- SCRAM works with it too; a hash costs 10,000 rounds for each account

VirtualHost ${lua(where.domain)}
VirtualHost ${lua(where.anonymousDomain)}
	authentication = "anonymous"
	allow_anonymous_s2s = false

-- every component domain has to be declared
${components.join('\n')}
`
}
