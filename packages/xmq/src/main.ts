/**
 * The command line of `xmq`. What a command is made of is loaded when it is called: a broker that starts again does not wait for the
 * code of clients.
 */
import { LOG_FORMATS, LOG_LEVELS, VERSION } from '@xmq/broker'
import { Command, CommanderError, Option } from 'commander'
import { addClientCommands } from './client-commands.ts'
import { DEFAULT_PORT } from './client-flags.ts'
import type { ConfigFlags } from './config-file.ts'
import type { DevFlags } from './dev.ts'
import { DEV_FOLDER, DEV_QUEUES } from './dev-data.ts'
import { EXIT, reportFailure, type ExitCode } from './exit.ts'
import { processIo, type Io, type OutputFormat } from './io.ts'
import { collect, outputOption } from './options.ts'

const CONFIG_HELP = `
The configuration is looked for in --config, $XMQ_CONFIG, ./xmq.config.yaml, ./xmq.config.json, /etc/xmq/xmq.config.yaml.
A flag beats its variable (XMQ_SERVER, XMQ_SECRET, XMQ_SECRET_FILE, XMQ_STORE, XMQ_HTTP, XMQ_LOG_LEVEL, XMQ_LOG_FORMAT), which
beats the file, which beats the defaults.`

/**
 * Runs one command.
 *
 * @param argv the arguments, without node and script
 * @returns the exit code; nothing is thrown
 */
export async function main(argv: readonly string[], io: Io = processIo()): Promise<ExitCode> {
  let code: ExitCode = EXIT.ok
  const program = createProgram(io, (result) => {
    code = result
  })
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return code
  } catch (error) {
    // Commander has said it already; help and version end with 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
    return reportFailure(io, formatOf(argv), error)
  }
}

/** What `--output` says, also where the arguments could not be parsed. */
function formatOf(argv: readonly string[]): OutputFormat {
  const index = argv.findIndex((argument) => argument === '--output' || argument === '-o')
  const isJson =
    argv.includes('--output=json') || argv.includes('-ojson') || (index !== -1 && argv[index + 1] === 'json')
  return isJson ? 'json' : 'text'
}

function createProgram(io: Io, done: (code: ExitCode) => void): Command {
  const program = new Command('xmq')
    .description('Runs and feeds an XMQ broker: message queues on the XMPP server that you already have.')
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .showHelpAfterError('(xmq --help tells what there is)')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void io.stderr.write(text),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .addHelpText(
      'after',
      `
Examples:
  $ xmq dev                                       a server, a broker and two queues on this machine
  $ xmq sub queue1.localhost greetings            prints what arrives
  $ echo hello | xmq pub queue1.localhost greetings
  $ xmq serve --config /etc/xmq/xmq.config.yaml   the broker on your own XMPP server`,
    )
  addBrokerCommands(program, io, done)
  addClientCommands(program, io, done)
  return program
}

function addBrokerCommands(program: Command, io: Io, done: (code: ExitCode) => void): void {
  addConfigOptions(program.command('serve').description('run the broker on an XMPP server, until SIGTERM or Ctrl-C'))
    .addHelpText(
      'after',
      `${CONFIG_HELP}

Exit codes:
  0  stopped by SIGTERM or Ctrl-C      2  the configuration is wrong, or an address of it cannot be listened on
  1  it failed                         7  another broker serves a domain of it, or has its store open
After 2 and 7 a restart fails again: see the unit in docs/operating.md. A second broker gives up within seconds on ejabberd, and
after 30 seconds on Prosody, where a dead connection that is not noticed yet looks the same.

Examples:
  $ XMQ_SECRET=... xmq serve
  $ xmq serve --config /etc/xmq/xmq.config.yaml --secret-file /run/secrets/xmq --http 127.0.0.1:8090`,
    )
    .action(async (flags: ConfigFlags) => {
      const { serve } = await import('./serve.ts')
      done(await serve(io, flags))
    })
  addConfigOptions(program.command('check-config').description('check the configuration and print the effective rules'))
    .addOption(outputOption())
    .addHelpText(
      'after',
      `${CONFIG_HELP}

Exit codes: 0 it is valid, 2 it is not; every problem is named. --output json prints an object with 'valid' and either 'rules' and
'warnings' or 'problems', each with its path and text.

Examples:
  $ xmq check-config
  $ xmq check-config --config xmq.config.yaml --output json`,
    )
    .action(async (flags: ConfigFlags & { readonly output: OutputFormat }) => {
      const { checkConfig } = await import('./check-config.ts')
      done(checkConfig(io, flags))
    })
  program
    .command('dev')
    .description('run an embedded XMPP server and a broker on this machine, for development')
    .option('-p, --port <port>', 'for clients over TCP; 0: any free one', String(DEFAULT_PORT))
    .option('--websocket-port <port>', "for clients over WebSocket; 0: any free one, 'off': none", '5280')
    .option('--host <address>', 'where to listen; loopback only', '127.0.0.1')
    .option('--domain <domain>', "the server's domain", 'localhost')
    .option('-q, --queue <name:type>', `a queue; repeat it for more (default: ${DEV_QUEUES.join(' ')})`, collect)
    .option(
      '-d, --data <dir>',
      `keep accounts and messages there (default: accounts in ${DEV_FOLDER}, messages in memory)`,
    )
    .option('--http <host:port>', 'serve health and metrics there')
    .addOption(new Option('--log-level <level>', 'of the broker').choices(LOG_LEVELS).default('warn'))
    .addOption(new Option('--log-format <format>', 'of the broker').choices(LOG_FORMATS).default('auto'))
    .addOption(outputOption())
    .addHelpText(
      'after',
      `
A queue's type is 'any' (one subscriber gets each message) or 'all' (every one does). A name without a dot gets the domain.
Accounts are made at their first login, with any password where the client is xmq or the SDK; for one that knows only SCRAM it is
the account's name or 'secret'. With --data messages are in DIR/xmq.db and survive a restart, as on a broker with
'store: sqlite:PATH'. Not for production: no TLS.

Examples:
  $ xmq dev
  $ xmq dev --queue jobs:any --queue news:all --http 127.0.0.1:8090
  $ xmq dev --data ./data
  $ xmq dev --port 0 --websocket-port 0 --output json`,
    )
    .action(async (flags: DevFlags) => {
      const { dev } = await import('./dev.ts')
      done(await dev(io, flags))
    })
}

function addConfigOptions(command: Command): Command {
  return command
    .option('-c, --config <file>', 'the configuration')
    .option('--server <url>', "the server's component port, such as xmpp://127.0.0.1:5347")
    .option('--secret-file <file>', "a file with the component's secret")
    .option('--store <url>', "where messages are kept: 'memory:' or 'sqlite:PATH'")
    .option('--http <host:port>', 'serve health and metrics there')
    .addOption(new Option('--log-level <level>', 'how much is logged').choices(LOG_LEVELS))
    .addOption(new Option('--log-format <format>', 'auto: text on a terminal, JSON elsewhere').choices(LOG_FORMATS))
}
