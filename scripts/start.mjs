/**
 * `npm start`: everything at once on this machine. Sets the checkout up, then shows XMQ at work (demo.mjs).
 *
 *   npm start                    until Ctrl-C
 *   npm start -- --once          ends with 0 after the sample was processed, with 1 and the reason if it was not
 *   npm start -- --port 5300     where the default port is taken
 *
 * Only what the oldest Node can load is imported before the set-up, which tells who has too old a one.
 */
import { setup, SetupError } from './setup.mjs'

const HELP = `Usage: npm start -- [--once] [--port N]

Sets XMQ up and shows it at work: an XMPP server with a broker, two workers and a producer.

  --once      end after the sample: exit code 0 if it was processed, 1 with the reason if not
  --port N    the port of the XMPP server (default: 5222; 0: any free one)
  --help      print this

Examples:
  npm start
  npm start -- --once
  npm start -- --port 5300`

/** A wrong argument. */
class UsageError extends Error {}

function parse(args) {
  const options = { once: false, port: undefined, help: false }
  const rest = args.flatMap((arg) =>
    /^--\w+=/.test(arg) ? [arg.slice(0, arg.indexOf('=')), arg.slice(arg.indexOf('=') + 1)] : [arg],
  )
  while (rest.length > 0) {
    const arg = rest.shift()
    if (arg === '--once') options.once = true
    else if (arg === '--help' || arg === '-h') options.help = true
    else if (arg === '--port') {
      const port = Number(rest.shift() || Number.NaN)
      if (!Number.isInteger(port) || port < 0 || port > 65_535)
        throw new UsageError('--port is a number from 0 (any free one) to 65535')
      options.port = port
    } else throw new UsageError(`${arg} is not known`)
  }
  return options
}

async function main() {
  const options = parse(process.argv.slice(2))
  if (options.help) {
    console.log(HELP)
    return 0
  }
  await setup()
  const { demo } = await import('./demo.mjs')
  return await demo(options)
}

try {
  process.exitCode = await main()
} catch (error) {
  if (error instanceof UsageError) {
    console.error(`${error.message}\n\n${HELP}`)
    process.exitCode = 2
  } else {
    console.error(error instanceof SetupError ? error.message : error)
    process.exitCode = 1
  }
}
