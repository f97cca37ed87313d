import { XmqError } from '@xmq/protocol'
import { expect, it } from 'vitest'
import { EXIT_CODES, exitCodeOf } from '../src/exit-codes.ts'

it('each ending has an exit code of its own', () => {
  const codes = Object.values(EXIT_CODES)
  expect(new Set(codes).size).toBe(codes.length)
})

it('the exit code tells what a script can do about it', () => {
  expect(exitCodeOf(new XmqError('invalid-config', 'x'))).toBe(2)
  expect(exitCodeOf(new XmqError('no-recipients', 'x'))).toBe(3)
  expect(exitCodeOf(new XmqError('forbidden', 'x'))).toBe(5)
  expect(exitCodeOf(new XmqError('conflict', 'x'))).toBe(7)
  expect(exitCodeOf(new XmqError('handler-failed', 'x'))).toBe(1)
})

it('a server that says that the queue is away is no connection', () => {
  expect(exitCodeOf(new XmqError('server', 'x', { condition: 'remote-server-not-found' }))).toBe(6)
  expect(exitCodeOf(new XmqError('server', 'x', { condition: 'item-not-found' }))).toBe(1)
})
