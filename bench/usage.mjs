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

/** A number that may be 0. @throws {UsageError} */
function countOption(values, name) {
  const value = Number(values[name])
  if (Number.isFinite(value) && value >= 0) return value
  throw new UsageError(`--${name} is '${values[name]}'; expected 0 or a number above it`)
}

/** @throws {UsageError} */
function choiceOption(values, name, known) {
  if (known.includes(values[name])) return values[name]
  throw new UsageError(`--${name} is '${values[name]}'; known are ${known.join(', ')}`)
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

/**
 * The options that this process was started with, read and checked: `positive` and `counts` are names of numbers, `choices` has the
 * values that a name can have, and `servers` are the kinds of `--server`. A mistake in them ends the process, and so does `--help`.
 */
export function startOptions(options, { positive = [], counts = [], choices = {} } = {}) {
  const known = Object.entries(options).map(([name, { type }]) => `--${name}${type === 'boolean' ? '' : ' …'}`)
  const text = known.length === 0 ? 'There are no options.' : `Options: ${known.join(', ')}`
  if (process.argv.includes('--help')) {
    console.log(text)
    return process.exit(0)
  }
  try {
    const values = readOptions(process.argv.slice(2), options)
    const isGiven = (name) => values[name] !== undefined
    for (const name of positive.filter(isGiven)) values[name] = positiveOption(values, name)
    for (const name of counts.filter(isGiven)) values[name] = countOption(values, name)
    for (const name of Object.keys(choices).filter(isGiven)) choiceOption(values, name, choices[name])
    return 'server' in options ? { ...values, servers: serversOption(values) } : values
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    console.error(`${error.message}\n${text}`)
    return process.exit(2)
  }
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
