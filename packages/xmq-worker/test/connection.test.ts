import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readEnvironment, resolveConnection } from '../src/connection.ts'
import { temporaryFolder } from './terminal.ts'

const FULL = {
  XMQ_SERVICE: 'xmpps://example.org',
  XMQ_JID: 'env@example.org',
  XMQ_PASSWORD: 'from-env',
  XMQ_QUEUE: 'jobs.example.org',
}

describe('the connection of a worker', () => {
  test('comes from the environment', () => {
    expect(resolveConnection('/', FULL, {})).toEqual({
      service: 'xmpps://example.org',
      jid: 'env@example.org',
      password: 'from-env',
      queue: 'jobs.example.org',
    })
  })

  test('takes flags before the environment, a password file before XMQ_PASSWORD', () => {
    const folder = temporaryFolder()
    writeFileSync(join(folder, 'secret'), 'from-file\n')
    const flags = { service: 'ws://h', jid: 'flag@d', queue: 'q.d', passwordFile: 'secret' }
    expect(resolveConnection(folder, FULL, flags)).toEqual({
      service: 'ws://h',
      jid: 'flag@d',
      password: 'from-file',
      queue: 'q.d',
    })
  })

  test('reads the password from XMQ_PASSWORD_FILE, without the line break at its end', () => {
    const folder = temporaryFolder()
    writeFileSync(join(folder, 'secret'), ' with spaces \r\n')
    const env = { ...FULL, XMQ_PASSWORD: '', XMQ_PASSWORD_FILE: join(folder, 'secret') }
    expect(resolveConnection('/', env, {}).password).toBe(' with spaces ')
  })

  test('names everything that is missing at once', () => {
    const env = { XMQ_SERVICE: 'xmpps://example.org' }
    expect(() => resolveConnection('/', env, {})).toThrow(/XMQ_JID[^]*XMQ_PASSWORD[^]*XMQ_QUEUE/)
  })

  test('fits `xmq dev` where nothing is said', () => {
    expect(resolveConnection('/', {}, {})).toEqual({
      service: 'xmpp://127.0.0.1:5222',
      jid: 'worker@localhost',
      password: 'worker',
      queue: 'queue1.localhost',
    })
  })

  test.each(['xmpp://localhost.example.org', 'xmpps://127.0.0.1.example.org:5223'])(
    'sends no guess to %s',
    (service) => {
      expect(() => resolveConnection('/', { XMQ_SERVICE: service }, { jid: 'a@b', queue: 'q' })).toThrow('password')
    },
  )

  test('names a password file that cannot be read', () => {
    expect(() => resolveConnection('/', FULL, { passwordFile: '/nowhere/secret' })).toThrow('/nowhere/secret')
  })
})

describe('an env file', () => {
  test('adds what the environment does not have', () => {
    const folder = temporaryFolder()
    writeFileSync(join(folder, '.env'), 'XMQ_JID=file@d\nXMQ_QUEUE="q.d" # a comment\n')
    expect(readEnvironment(folder, { XMQ_JID: 'env@d' }, undefined)).toEqual({ XMQ_JID: 'env@d', XMQ_QUEUE: 'q.d' })
  })

  test('may be missing unless it was named', () => {
    const folder = temporaryFolder()
    expect(readEnvironment(folder, FULL, undefined)).toEqual(FULL)
    expect(() => readEnvironment(folder, FULL, 'my.env')).toThrow('my.env')
  })
})
