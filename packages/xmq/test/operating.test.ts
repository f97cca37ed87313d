/** docs/operating.md says what the code does. */
import { readFileSync } from 'node:fs'
import { createBroker, parseConfig } from '@xmq/broker'
import { EXIT_CODES } from '@xmq/client'
import { startEmbeddedServer } from '@xmq/testing'
import { expect, it } from 'vitest'

const page = readFileSync(new URL('../../../docs/operating.md', import.meta.url), 'utf8')

it('lists every exit code, and keeps the unit down after those that a restart does not mend', () => {
  const listed = [...page.matchAll(/^\| (\d) \|/gm)].map((match) => Number(match[1]))
  expect(listed).toEqual(Object.values(EXIT_CODES))
  expect(page).toContain(`RestartPreventExitStatus=${EXIT_CODES.usage} ${EXIT_CODES.conflict}\n`)
})

it('lists every metric of the broker', async () => {
  const queues = { 'q.localhost': { type: 'any' } }
  const broker = createBroker(parseConfig({ server: 'xmpp://127.0.0.1:1', secret: 's', queues }))
  const names = [...(await broker.metrics()).matchAll(/^# TYPE (xmq_\w+)/gm)].map((match) => match[1] ?? '')
  expect(names.length).toBeGreaterThan(10)
  expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([])
  await broker.stop()
})

it('lists every metric of the embedded server', async () => {
  const server = await startEmbeddedServer({ websocketPort: false })
  const names = [...server.metrics().matchAll(/^# TYPE (\w+)/gm)].map((match) => match[1] ?? '')
  await server.stop()
  expect(names.length).toBeGreaterThan(3)
  expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([])
})
