/** ejabberd 23.01 in a folder, as any user: its virtual machine started directly, without su, epmd and /etc. */
import { existsSync, readdirSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type ServerPlace, type ServerRecipe, startInstalled } from './installed.ts'
import { type TestServer, type TestServerOptions, waitUntil } from './server.ts'

const ERL_PROGRAMS = ['/usr/bin/erl', '/usr/local/bin/erl']

/** Where Erlang and the folder of ejabberd's libraries are, or `undefined`. */
export function findEjabberd(): { readonly erl: string; readonly libraries: string } | undefined {
  const erl = ERL_PROGRAMS.find((path) => existsSync(path))
  const libraries = findLibraries()
  return erl === undefined || libraries === undefined ? undefined : { erl, libraries }
}

/** Starts an ejabberd of its own. */
export function startEjabberd(options: TestServerOptions = {}): Promise<TestServer> {
  return startInstalled(RECIPE, options)
}

const RECIPE: ServerRecipe = {
  kind: 'ejabberd',
  portCount: 4,
  websocketPath: '/ws',
  prepare: async (where, options) => {
    const configPath = join(where.folder, 'ejabberd.yml')
    const database = join(where.folder, 'db')
    await mkdir(database, { recursive: true })
    await writeFile(configPath, configuration(where, options))
    const found = findEjabberd()
    const distribution = where.ports[3] ?? 0
    const { schedulers = 1 } = options
    return {
      command: found?.erl ?? 'erl',
      args: [
        '-noinput',
        '-sname',
        `xmq${distribution}@localhost`,
        '-setcookie',
        `xmq${distribution}`,
        '-kernel',
        'inet_dist_use_interface',
        '{127,0,0,1}',
        '-erl_epmd_port',
        String(distribution),
        '-start_epmd',
        'false',
        '+S',
        `${schedulers}:${schedulers}`,
        '+sbwt',
        'none',
        '-mnesia',
        'dir',
        JSON.stringify(database),
        '-s',
        'ejabberd',
      ],
      env: {
        ...process.env,
        HOME: where.folder,
        ERL_LIBS: found?.libraries,
        ERL_CRASH_DUMP: join(where.folder, 'crash.dump'),
        EJABBERD_CONFIG_PATH: configPath,
        EJABBERD_LOG_PATH: where.logPath,
      },
    }
  },
  // It binds its ports long before it serves: only an answered request means ready.
  ready: (where, running) =>
    waitUntil('ejabberd serving', async () => {
      if (!running()) throw new Error('ejabberd ended while it started.')
      const answer = await call(where, 'status', {}).catch(() => undefined)
      return answer?.includes('is running') === true
    }),
  register: async (where, user, password) => {
    await call(where, 'register', { user, host: where.domain, password })
  },
  // Its database is written up to two seconds later: an account made just before a crash would be gone after it.
  beforeKill: (where, users) =>
    waitUntil('ejabberd writing its accounts', async () => {
      const database = join(where.folder, 'db')
      const names = list(database).filter((name) => /^passwd\.|\.LOG$/.test(name))
      const files = await Promise.all(names.map((name) => readFile(join(database, name)).catch(() => Buffer.alloc(0))))
      return users.every((user) => files.some((file) => file.includes(user)))
    }),
}

async function call(where: ServerPlace, command: string, body: object): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${where.ports[2]}/api/${command}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  })
  const text = await response.text()
  // 409 is an account that exists.
  if (!response.ok && response.status !== 409) throw new Error(`ejabberd ${command}: ${response.status} ${text}`)
  return text
}

/** The folder with ejabberd's and Erlang's extra libraries: `/usr/lib/ARCHITECTURE` on Debian and Ubuntu. */
function findLibraries(): string | undefined {
  for (const folder of ['/usr/lib', ...list('/usr/lib').map((name) => join('/usr/lib', name))]) {
    if (list(folder).some((name) => /^ejabberd-\d/.test(name))) return folder
  }
  return undefined
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

function configuration(where: ServerPlace, options: TestServerOptions): string {
  const [c2sPort, componentPort, httpPort] = where.ports
  return `# Loopback only, no TLS, no s2s, no shaper, accounts in this folder.
loglevel: info
log_rotate_count: 0
hosts: [${where.domain}, ${where.anonymousDomain}]

auth_method: internal
auth_password_format: plain # SCRAM and PLAIN both work, and an account is made at once
host_config:
  ${where.anonymousDomain}:
    auth_method: anonymous
    anonymous_protocol: sasl_anon
    allow_multiple_connections: true
disable_sasl_mechanisms: ["digest-md5", "X-OAUTH2"]

listen:
  - port: ${c2sPort}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    max_stanza_size: 262144 # Debian's default: tests meet the real limit
    starttls: false
    shaper: c2s_shaper
  - port: ${componentPort}
    ip: "127.0.0.1"
    module: ejabberd_service
    access: all
    shaper: none
    max_stanza_size: 1048576
    check_from: ${options.checkFrom ?? true}
    password: "${where.secret}" # no hosts: any domain may connect with this secret
  - port: ${httpPort}
    ip: "127.0.0.1"
    module: ejabberd_http
    request_handlers:
      /ws: ejabberd_http_ws
      /api: mod_http_api

websocket_origin: []

api_permissions:
  tests:
    who: { access: { allow: [{ acl: loopback }] } }
    what: "*"
acl:
  loopback:
    ip: ["127.0.0.0/8"]
  producer:
    user_regexp: "^producer"
shaper_rules:
  max_user_sessions: 100
${options.producerBytes === undefined ? '  c2s_shaper: none' : shaper(options.producerBytes)}

modules:
  mod_admin_extra: {}
  mod_caps: {}
  mod_carboncopy: {}
  mod_disco: {}
  mod_http_api: {}
  mod_last: {}
  mod_offline: {}
  mod_mam: { default: always, assume_mam_usage: false }
  mod_ping: {}
  mod_roster: {}
  mod_stream_mgmt: { resend_on_timeout: if_offline, resume_timeout: 60 }
  mod_time: {}
  mod_version: {}
`
}

/** The end of `shaper_rules`, and the shaper that they name. */
function shaper(bytes: number): string {
  return `  c2s_shaper:
    producer: producer
    none: all
shaper:
  producer:
    rate: ${bytes}
    burst_size: ${bytes}`
}
