import { inspect } from 'node:util'
import { XmqError } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import { configProblemsOf, describeConfig, domainsOf, parseConfig, type ParseConfigOptions } from '../src/config.ts'
import { RELIABLE_DEFAULTS } from '../src/core/index.ts'

const QUEUES = { 'queue1.localhost': { type: 'any' } }
const MINIMAL = { server: 'xmpp://127.0.0.1:5347', secret: 's3cret', queues: QUEUES }

function problemOf(raw: unknown, options: ParseConfigOptions = {}): string {
  try {
    parseConfig(raw, { where: 'xmq.config.yaml', ...options })
  } catch (error) {
    expect(error).toBeInstanceOf(XmqError)
    expect((error as XmqError).code).toBe('invalid-config')
    return (error as XmqError).message
  }
  return 'no problem'
}

const queue = (rules: Record<string, unknown>, address = 'jobs.localhost') => ({
  ...MINIMAL,
  queues: { [address]: { type: 'any', ...rules } },
})

describe('what is left out', () => {
  it('is filled in with the documented defaults', () => {
    const config = parseConfig(MINIMAL)
    expect(config).toMatchObject({
      server: { host: '127.0.0.1', port: 5347 },
      secret: 's3cret',
      store: { scheme: 'memory' },
      http: undefined,
      log: { level: 'info', format: 'auto' },
      limits: {
        subscriptionsMax: 100_000,
        openRequestsMax: 10_000,
        openRequestsPerJidMax: 1_000,
        pingIntervalMs: 60_000,
        pingTimeoutMs: 10_000,
        reconnectMsMax: 30_000,
        storingBytesMax: 67_108_864,
        overload: { loopDelayMsMax: 2000, inputDelayMsMax: 5000, commitMsMax: 2000 },
      },
    })
    expect(config.queues).toEqual([
      {
        address: 'queue1.localhost',
        type: 'any',
        publish: ['localhost'],
        consume: ['localhost'],
        admins: [],
        preserveFrom: false,
        requestTimeoutMs: 30_000,
        ttlSecondsMax: 86_400,
        payloadBytesMax: 204_800,
        topicsMax: 10_000,
        subscriptionsPerJidMax: 1000,
        reliable: RELIABLE_DEFAULTS,
      },
    ])
    expect(Object.isFrozen(config) && Object.isFrozen(config.queues[0]) && Object.isFrozen(config.limits)).toBe(true)
  })

  it('falls back to the component port of XEP-0114 where the server names none', () => {
    expect(parseConfig({ ...MINIMAL, server: 'xmpp://[::1]' }).server).toEqual({ host: '::1', port: 5347 })
  })

  it('gives a node queue the parent of its domain', () => {
    const config = parseConfig(queue({}, 'Orders@XMQ.Localhost'))
    expect(config.queues[0]).toMatchObject({ address: 'orders@xmq.localhost', publish: ['localhost'] })
  })
})

describe('what is given', () => {
  it('has its relative store in the folder that the caller names', () => {
    const raw = { ...MINIMAL, store: 'sqlite:./data/xmq.db' }
    expect(parseConfig(raw, { directory: '/etc/xmq' }).store).toEqual({
      scheme: 'sqlite',
      path: '/etc/xmq/data/xmq.db',
    })
    expect(parseConfig(raw).store).toEqual({ scheme: 'sqlite', path: './data/xmq.db' })
  })

  it('is read in its units', () => {
    const rules = {
      requestTimeout: '500ms',
      maxTtl: '2h',
      maxPayload: '64KiB',
      maxTopics: 5,
      maxSubscriptionsPerJid: 6,
      preserveFrom: true,
      publish: ['Shop@Localhost', 'localhost'],
      consume: [],
      admins: ['ops@localhost'],
    }
    expect(parseConfig(queue(rules)).queues[0]).toMatchObject({
      requestTimeoutMs: 500,
      ttlSecondsMax: 7200,
      payloadBytesMax: 65_536,
      topicsMax: 5,
      subscriptionsPerJidMax: 6,
      preserveFrom: true,
      publish: ['shop@localhost', 'localhost'],
      consume: [],
      admins: ['ops@localhost'],
    })
  })

  it('serves each domain once, however many nodes it has', () => {
    const queues = {
      'a@xmq.localhost': { type: 'any' },
      'b@xmq.localhost': { type: 'all' },
      'q.localhost': { type: 'any' },
    }
    expect(domainsOf(parseConfig({ ...MINIMAL, queues }))).toEqual(['xmq.localhost', 'q.localhost'])
  })

  it('is beaten by overrides, the last one first', () => {
    const overrides = [
      { path: 'server', value: 'xmpp://10.0.0.1', source: 'XMQ_SERVER' },
      { path: 'server', value: 'xmpp://10.0.0.2', source: '--server' },
      { path: 'log.level', value: 'debug', source: '--log-level' },
      { path: 'secret', value: 'with ${braces}', source: 'XMQ_SECRET' },
    ]
    const config = parseConfig({ ...MINIMAL, secret: undefined, secretFile: '/nowhere' }, { overrides })
    expect(config.server.host).toBe('10.0.0.2')
    expect(config.log.level).toBe('debug')
    expect(config.secret).toBe('with ${braces}')
  })

  it('names the flag, not the file, where an override is wrong', () => {
    const overrides = [{ path: 'http', value: 'nonsense:port', source: '--http' }]
    expect(problemOf(MINIMAL, { overrides })).toBe(
      "--http: must be an address such as '127.0.0.1:8090', but is 'nonsense:port'.",
    )
  })
})

describe('variables', () => {
  it('are taken from the environment, and $${ is a literal', () => {
    const config = parseConfig({ ...MINIMAL, secret: '${A}-$${B}' }, { env: { A: 'x' } })
    expect(config.secret).toBe('x-${B}')
  })

  it('that are not set are reported once, by name', () => {
    expect(problemOf({ ...MINIMAL, secret: '${XMQ_SECRET}' })).toBe(
      'xmq.config.yaml: secret: the environment variable XMQ_SECRET is not set. Set it, or write the value here.',
    )
  })

  it('give numbers too', () => {
    expect(parseConfig(queue({ maxTopics: '${N}' }), { env: { N: '7' } }).queues[0]?.topicsMax).toBe(7)
  })
})

describe('the secret', () => {
  it('is read from a file without its last line break', () => {
    const readSecretFile = () => ({ text: 'from file\n', isWorldReadable: false })
    const raw = { ...MINIMAL, secret: undefined, secretFile: '/run/secrets/xmq' }
    delete (raw as { secret?: unknown }).secret
    expect(parseConfig(raw, { readSecretFile }).secret).toBe('from file')
  })

  it('in a file that everybody can read is warned of', () => {
    const warnings: string[] = []
    const { secret: _, ...rest } = MINIMAL
    parseConfig(
      { ...rest, secretFile: '/s' },
      { readSecretFile: () => ({ text: 'x', isWorldReadable: true }), onWarning: (text) => warnings.push(text) },
    )
    expect(warnings).toEqual(['secretFile: every user of this machine can read /s. Run: chmod 600 /s'])
  })

  it('shows in no text that is made of the configuration', () => {
    const config = parseConfig({ ...MINIMAL, secret: 'hunter2' })
    for (const text of [
      JSON.stringify(config),
      inspect(config, { depth: 9 }),
      JSON.stringify(describeConfig(config)),
    ]) {
      expect(text).not.toContain('hunter2')
    }
    expect({ ...config }.secret).toBe('hunter2')
  })
})

describe('the description', () => {
  it('is itself a configuration that means the same', () => {
    const config = parseConfig({
      ...queue({ requestTimeout: '90s', maxTtl: '90s', maxPayload: '1000B' }),
      http: '[::1]:80',
    })
    const again = parseConfig({ ...describeConfig(config), secret: 's3cret' })
    expect({ ...again }).toEqual({ ...config })
  })
})

describe('warnings', () => {
  const warningsOf = (raw: unknown) => {
    const warnings: string[] = []
    parseConfig(raw, { onWarning: (text) => warnings.push(text) })
    return warnings
  }

  it('name a queue that nobody may use', () => {
    expect(warningsOf(queue({ consume: [] }))).toEqual([
      'queues.jobs.localhost.consume: is empty, so nobody may. Leave it out for the parent domain.',
    ])
    expect(warningsOf(queue({ publish: ['shop@localhost'] }))).toEqual([])
  })

  it('name a secret with a blank at its end, without the secret', () => {
    expect(warningsOf({ ...MINIMAL, secret: 'hunter2 ' })).toEqual([
      'secret: begins or ends with a blank. Take it out, unless the server has it too.',
    ])
  })

  it('name what other machines can reach', () => {
    const warnings: string[] = []
    parseConfig(
      { ...MINIMAL, server: 'xmpp://xmpp.example.org', http: '0.0.0.0:8090' },
      { onWarning: (text) => warnings.push(text) },
    )
    expect(warnings.map((text) => text.split(':')[0])).toEqual(['server', 'http'])
  })
})

const WRONG: readonly [name: string, raw: unknown, problem: string][] = [
  ['no mapping', 'hello', "xmq.config.yaml: must be a mapping of keys to values, but is 'hello'."],
  [
    'no server',
    { secret: 's', queues: QUEUES },
    "server: must be the server's component port, such as 'xmpp://127.0.0.1:5347', but is missing.",
  ],
  [
    'a server without scheme',
    { ...MINIMAL, server: '127.0.0.1:5347' },
    "server: '127.0.0.1:5347' has no scheme. Write 'xmpp://127.0.0.1:5347'.",
  ],
  [
    'a server with TLS',
    { ...MINIMAL, server: 'xmpps://a' },
    "server: 'xmpps://a' has the scheme 'xmpps'; XEP-0114 knows only plain TCP. Write",
  ],
  [
    'a port out of range',
    { ...MINIMAL, server: 'xmpp://a:70000' },
    "server: must be an address such as 'xmpp://127.0.0.1:5347', but is 'a:70000'.",
  ],
  ['no secret', { server: 'xmpp://a', queues: QUEUES }, "secret: is missing. Write 'secret: ${XMQ_SECRET}'"],
  ['an empty secret', { ...MINIMAL, secret: ' ' }, 'secret: is empty.'],
  [
    'a secret that YAML reads as a number',
    { ...MINIMAL, secret: 1234 },
    'secret: must be text, but is a number. Put it in quotes.',
  ],
  [
    'a placeholder',
    { ...MINIMAL, secret: 'CHANGE-ME' },
    "secret: is the placeholder of the examples. Make one with 'openssl rand -hex 24'",
  ],
  ['two secrets', { ...MINIMAL, secretFile: '/s' }, "secretFile: stands beside 'secret'. Keep one of the two."],
  ['an unknown store', { ...MINIMAL, store: 'redis:x' }, "store: unknown store scheme 'redis'. Known: memory, sqlite."],
  [
    'a sqlite store without a path',
    { ...MINIMAL, store: 'sqlite:' },
    "store: must be 'sqlite:PATH', as in 'sqlite:./data/xmq.db', but is 'sqlite:'.",
  ],
  [
    'a misspelt store',
    { ...MINIMAL, store: 'memroy:' },
    "store: unknown store scheme 'memroy'; did you mean 'memory'? Known: memory, sqlite.",
  ],
  [
    'a memory store with a path',
    { ...MINIMAL, store: 'memory:x' },
    "store: must be 'memory:' with nothing behind it, but is 'memory:x'.",
  ],
  ['an http port alone', { ...MINIMAL, http: 8090 }, "http: must be an address such as '127.0.0.1:8090', but is 8090."],
  [
    'an unknown top key',
    { ...MINIMAL, sevrer: 'x' },
    "sevrer: unknown key; did you mean 'server'? Known: server, secret,",
  ],
  [
    'an unknown key of a queue',
    queue({ maxTopcis: 5 }),
    "queues.jobs.localhost.maxTopcis: unknown key; did you mean 'maxTopics'?",
  ],
  [
    'a key of a feature that does not exist',
    queue({ mirror: 'b.localhost' }),
    'queues.jobs.localhost.mirror: unknown key. Known: type, publish',
  ],
  ['no queues', { ...MINIMAL, queues: undefined }, 'queues: is missing. Name at least one'],
  ['empty queues', { ...MINIMAL, queues: {} }, 'queues: is empty. Name at least one'],
  ['no type', { ...MINIMAL, queues: { 'a.b': null } }, "queues.a.b.type: must be 'any' or 'all', but is missing."],
  [
    'a misspelt type',
    queue({ type: 'al' }),
    "queues.jobs.localhost.type: must be 'any' or 'all', but is 'al'. Did you mean 'all'?",
  ],
  ['an address that is none', queue({}, 'a b'), "queues.a b: 'a b' is not an XMPP address: its domain"],
  [
    'a queue with a resource',
    queue({}, 'a@b/c'),
    "queues.a@b/c: 'a@b/c' has a resource. Leave out the part from '/' on.",
  ],
  [
    'the same queue twice',
    { ...MINIMAL, queues: { 'A.b': { type: 'any' }, 'a.b': { type: 'any' } } },
    'queues.a.b: is there twice',
  ],
  [
    'a domain without a parent',
    queue({}, 'jobs'),
    "xmq.config.yaml: queues.jobs: 'jobs' has no parent domain, which may publish and consume where nobody is named. Write jobs.localhost",
  ],
  [
    'access that is no list',
    queue({ publish: 'localhost' }),
    "queues.jobs.localhost.publish: must be a list of accounts (shop@localhost) and domains (localhost), but is 'localhost'. Write [localhost].",
  ],
  [
    'a pattern in an access list',
    queue({ consume: ['*@localhost'] }),
    "queues.jobs.localhost.consume[0]: '*@localhost' has a '*', and there are no patterns here.",
  ],
  [
    'a full JID in an access list',
    queue({ admins: ['ops@localhost/home'] }),
    "queues.jobs.localhost.admins[0]: 'ops@localhost/home' has a resource.",
  ],
  [
    'a duration without a unit',
    queue({ requestTimeout: 30 }),
    "queues.jobs.localhost.requestTimeout: must be a duration with its unit, such as '500ms', '30s', '10m', '1h' or '1d', but is 30.",
  ],
  [
    'a duration out of range',
    queue({ requestTimeout: '2d' }),
    "requestTimeout: must be from 100ms to 1h, but is '2d'.",
  ],
  [
    'a size without a unit',
    queue({ maxPayload: '1000' }),
    "maxPayload: must be a size with its unit, such as '512B' or '200KiB', but is '1000'.",
  ],
  [
    'a size with a unit that is none',
    queue({ maxPayload: '1TiB' }),
    "maxPayload: '1TiB' has the unit 'TiB', which is not known. Known: B, KB, MB, GB, KiB, MiB, GiB.",
  ],
  [
    'a duration with a unit that is none',
    queue({ requestTimeout: '30sec' }),
    "requestTimeout: '30sec' has the unit 'sec', which is not known. Known: ms, s, m, h, d.",
  ],
  [
    'a node of a domain without a parent',
    queue({}, 'jobs@localhost'),
    "queues.jobs@localhost: 'localhost' has no parent domain, which may publish and consume where nobody is named. Write jobs@xmq.localhost",
  ],
  [
    'a variable in an address',
    queue({}, '${QUEUE}.localhost'),
    "has a '${', and no variable is replaced in an address that is a key. Write the address.",
  ],
  [
    'a size over what is written',
    queue({ maxPayload: '1MiB' }),
    "maxPayload: must be from 1B to 200KiB, but is '1MiB'.",
  ],
  [
    'a fraction of a topic',
    queue({ maxTopics: 1.5 }),
    'maxTopics: must be a whole number from 1 to 10000000, but is 1.5.',
  ],
  ['yes for a boolean', queue({ preserveFrom: 'yes' }), "preserveFrom: must be true or false, but is 'yes'."],
  [
    'an unknown limit',
    { ...MINIMAL, limits: { pingIntervall: '1s' } },
    "limits.pingIntervall: unknown key; did you mean 'pingInterval'?",
  ],
  [
    'a log level that is none',
    { ...MINIMAL, log: { level: 'trace' } },
    "log.level: must be 'debug' or 'info' or 'warn' or 'error', but is 'trace'.",
  ],
  [
    'a bad variable',
    { ...MINIMAL, server: '${not a name}' },
    "server: '${not a name}' does not name an environment variable.",
  ],
]

describe('what is wrong', () => {
  it.each(WRONG)('%s is named, with the way to mend it', (_, raw, problem) => {
    expect(problemOf(raw)).toContain(problem)
    expect(problemOf(raw)).toContain('xmq.config.yaml: ')
  })

  it('is reported all at once', () => {
    const text = problemOf({ server: 'x', store: 'redis:', queues: { 'a.b': { typ: 'any' } } })
    expect(text.split('\n')).toEqual([
      '5 problems:',
      expect.stringContaining('xmq.config.yaml: server: '),
      expect.stringContaining('xmq.config.yaml: secret: '),
      expect.stringContaining('xmq.config.yaml: store: '),
      expect.stringContaining("xmq.config.yaml: queues.a.b.typ: unknown key; did you mean 'type'?"),
      expect.stringContaining('xmq.config.yaml: queues.a.b.type: '),
    ])
  })

  it('does not follow names of the prototype', () => {
    const raw: unknown = JSON.parse('{"__proto__":{"secret":"x"},"constructor":1}')
    expect(problemOf(raw)).toContain('xmq.config.yaml: __proto__: unknown key')
  })

  it('is bounded in depth', () => {
    let deep: unknown = 'x'
    for (let i = 0; i < 10_000; i++) deep = [deep]
    expect(problemOf({ ...MINIMAL, log: deep })).toContain('nests deeper than 8 levels')
  })
})

it('problems can be read one by one, each with its key or the flag that it came from', () => {
  const overrides = [{ path: 'http', value: 'nonsense:port', source: '--http' }]
  const thrown: unknown[] = []
  try {
    parseConfig({ ...MINIMAL, sevrer: 'x' }, { overrides, where: 'xmq.config.yaml' })
  } catch (error) {
    thrown.push(error)
  }
  const [error] = thrown as [XmqError]
  expect(configProblemsOf(error)).toEqual([
    { path: 'sevrer', text: expect.stringMatching(/^unknown key; did you mean 'server'/) },
    { path: '--http', text: expect.stringMatching(/^must be an address/) },
  ])
  expect(error.message).toContain('xmq.config.yaml: sevrer: unknown key')
  expect(error.message).toContain("\n  --http: must be an address such as '127.0.0.1:8090'")
  expect(configProblemsOf(new XmqError('internal', 'x'))).toEqual([])
})
