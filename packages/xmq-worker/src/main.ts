/** The command line of `xmq-worker`. */
import { readFileSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { EXIT_CODES, type ExitCode } from '@xmq/client'
import { createProject } from './project.ts'
import { runCommand, type RunFlags } from './run.ts'
import { type Io, mistake, type OutputFormat, paint, processIo, reportFailure } from './terminal.ts'
import { watchCommand } from './watch.ts'

/** How {@link main} is embedded. */
export interface MainOptions {
  /**
   * What the user typed in place of `xmq-worker new`, for help and messages.
   * @default undefined
   */
  readonly calledAs?: string
  /**
   * Streams, directory and environment.
   * @default those of the process
   */
  readonly io?: Io
}

interface NewFlags {
  readonly force?: boolean
  readonly output: OutputFormat
}

const NEW_EXAMPLES = `
Examples:
  $ xmq-worker new thumbnails             a project in ./thumbnails
  $ cd thumbnails && npm install
  $ npm test                              tests it on a broker of its own
  $ npm run dev                           runs it, and again on every change`

const RUN_EXAMPLES = `
The file's default export is a function (connection) => Worker, or a Worker. Without FILE: package.json's main,
dist/worker.js, worker.js, src/worker.ts, ...

Environment (also read from ./.env): XMQ_SERVICE, XMQ_JID, XMQ_QUEUE, XMQ_PASSWORD or XMQ_PASSWORD_FILE.
Flags beat the environment. There is no flag for a password: every user of the machine could read it.

Examples:
  $ xmq-worker run dist/worker.js
  $ XMQ_PASSWORD=secret xmq-worker run src/worker.ts --jid worker@localhost --queue queue1.localhost
  $ xmq-worker run --service xmpps://example.org --password-file /run/secrets/xmq --output json

SIGTERM and Ctrl-C let running jobs finish; a second one ends the process at once.

Exit codes, the same as those of xmq:
  0  stopped as asked                  5  wrong password, or no right to do this
  1  the worker's own code failed      6  no connection to the server or the queue
  2  wrong arguments or configuration  7  another session took its place
  4  no answer in time`

/**
 * Runs one command.
 *
 * @param argv the arguments, without node and script
 * @returns the exit code; nothing is thrown
 */
export async function main(argv: readonly string[], options: MainOptions = {}): Promise<ExitCode> {
  const io = options.io ?? processIo()
  let code: ExitCode = EXIT_CODES.ok
  const program = createProgram(io, options.calledAs, (result) => {
    code = result
  })
  try {
    await program.parseAsync(argv, { from: 'user' })
    return code
  } catch (error) {
    // Commander has already said it; help and version end with 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_CODES.ok : EXIT_CODES.usage
    return reportFailure(io, formatOf(argv), error)
  }
}

function createProgram(io: Io, calledAs: string | undefined, done: (code: ExitCode) => void): Command {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string
  }
  const program = new Command('xmq-worker')
    .description('Makes and runs XMQ workers.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .showHelpAfterError('(xmq-worker --help tells what there is)')
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
  $ xmq-worker new thumbnails             a ready TypeScript project in ./thumbnails
  $ xmq-worker run dist/worker.js         runs a worker until SIGTERM or Ctrl-C
  $ xmq-worker dev src/worker.ts          the same, restarted whenever its sources change`,
    )
  program
    .command('new')
    .description('make a new TypeScript worker project')
    .argument('<dir>', "the directory to make; its name becomes the package's")
    .option('-f, --force', 'write into a directory that is not empty')
    .addOption(outputOption())
    .addHelpText('after', NEW_EXAMPLES)
    .action(async (directory: string, flags: NewFlags) => done(await newCommand(io, directory, flags, calledAs)))
  addRunOptions(program.command('run').description('run a worker until SIGTERM or Ctrl-C')).action(
    async (file: string | undefined, flags: RunFlags) => done(await runCommand(io, file, flags)),
  )
  addRunOptions(program.command('dev').description('run a worker, and restart it when its sources change')).action(
    async (file: string | undefined, flags: RunFlags) => done(await watchCommand(io, file, flags)),
  )
  return program
}

function addRunOptions(command: Command): Command {
  return command
    .argument('[file]', 'the worker module: .js, .mjs or .ts')
    .option('-s, --service <url>', 'the XMPP server: xmpp://host:port, xmpps://, ws:// or wss://')
    .option('-j, --jid <jid>', 'the account, user@domain')
    .option('-q, --queue <jid>', "the queue's address")
    .option('--password-file <file>', "a file with the account's password")
    .option('--env-file <file>', 'a file of variables (default: .env, if there is one)')
    .addOption(
      new Option('--health <seconds>', 'print how the worker is doing this often; 0 never does')
        .default(60)
        .argParser(parseSeconds),
    )
    .addOption(outputOption())
    .addHelpText('after', RUN_EXAMPLES)
}

function parseSeconds(text: string): number {
  const seconds = Number(text)
  if (/^\d+$/.test(text) && seconds <= 86_400) return seconds
  throw new InvalidArgumentError('It is a whole number of seconds, 0 to 86400.')
}

function outputOption(): Option {
  return new Option('-o, --output <format>', 'text for people, json (one object a line) for programs')
    .choices(['text', 'json'])
    .default('text')
}

/** Needed before the arguments are understood: an error about them is printed in the format asked for, too. */
function formatOf(argv: readonly string[]): OutputFormat {
  const index = argv.findIndex((argument) => argument === '--output' || argument === '-o')
  const isJson =
    argv.includes('--output=json') || argv.includes('-ojson') || (index !== -1 && argv[index + 1] === 'json')
  return isJson ? 'json' : 'text'
}

async function newCommand(io: Io, directory: string, flags: NewFlags, calledAs: string | undefined): Promise<ExitCode> {
  if (directory.trim() === '') throw mistake(`A directory is needed: ${calledAs ?? 'xmq-worker new'} my-worker`)
  const created = await createProject({ directory: resolve(io.cwd, directory), force: flags.force ?? false })
  const shown = relative(io.cwd, created.directory)
  const steps = [...(shown === '' ? [] : [`cd ${quoted(shown)}`]), 'npm install', 'npm test', 'npm run dev']
  if (flags.output === 'json') {
    io.stdout.write(`${JSON.stringify({ ...created, next: steps })}\n`)
    return EXIT_CODES.ok
  }
  const bold = (text: string): string => paint(io, 'stdout', 'bold', text)
  io.stdout.write(`${paint(io, 'stdout', 'green', '✓')} ${bold(created.name)}: a worker in ${created.directory}\n`)
  for (const file of created.files) io.stdout.write(`    ${paint(io, 'stdout', 'dim', file)}\n`)
  io.stdout.write(`\nNext:\n${steps.map((step) => `  ${bold(step)}\n`).join('')}`)
  io.stdout.write('\n`npm run dev` needs a broker: `npm run broker`, in another terminal, is one for this machine.\n')
  return EXIT_CODES.ok
}

function quoted(path: string): string {
  return /^[\w./@-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`
}
