/** What a benchmark was asked for, where that makes no sense: told in one line, with exit code 2. */
import { parseArgs } from 'node:util'

/** XMPP servers that a benchmark can run through. */
export const SERVER_KINDS = ['embedded', 'prosody', 'ejabberd']

/** A mistake in the arguments: told without a stack. */
export class UsageError extends Error {}

/** Like `parseArgs` of Node, without arguments beside options. @throws {UsageError} */
export function readOptions(args, options) {
  try {
    return parseArgs({ args, options }).values
  } catch (error) {
    // Node's hint is about arguments that begin with a dash.
    throw new UsageError(error.message.split('. To specify')[0])
  }
}

/** A number above 0. @throws {UsageError} */
export function positiveOption(values, name) {
  const value = Number(values[name])
  if (Number.isFinite(value) && value > 0) return value
  throw new UsageError(`--${name} is '${values[name]}'; expected a number above 0`)
}

/** The kinds of `--server`, `undefined` for all that are installed. @throws {UsageError} */
export function serversOption(values) {
  const servers = values.server?.flatMap((names) => names.split(','))
  for (const kind of servers ?? []) {
    if (!SERVER_KINDS.includes(kind)) {
      throw new UsageError(`--server is '${kind}'; known are ${SERVER_KINDS.join(', ')}`)
    }
  }
  return servers
}

/** Runs a benchmark; of a mistake in its arguments it tells just that. */
export async function runBench(bench) {
  try {
    await bench()
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    console.error(
      `${error.message}\nnpm run bench -- --help lists the options; -- --peers --help those beside RabbitMQ and BullMQ.`,
    )
    process.exitCode = 2
  }
}
