import { SUBSCRIPTION_NAME_BYTES_MAX } from '@xmq/protocol'
import { askQueue, type AskFlags } from './ask-queue.ts'
import { assertName, assertReliable } from './client-flags.ts'
import { EXIT, type ExitCode } from './exit.ts'
import type { Io } from './io.ts'

/** `xmq forget`: ends a durable subscription of this account, with all that waits in it. */
export async function forget(
  io: Io,
  { queue, name }: { readonly queue: string; readonly name: string },
  flags: AskFlags,
): Promise<ExitCode> {
  assertName('NAME', name, SUBSCRIPTION_NAME_BYTES_MAX)
  assertReliable('NAME', flags.mode)
  await askQueue(io, queue, flags, (client, options) => client.forget(name, options))
  if (flags.output === 'json') io.stdout.write(`${JSON.stringify({ queue, name, forgotten: true })}\n`)
  return EXIT.ok
}
