/** The commands that connect as a client. */
import type { Command } from 'commander'
import { DEFAULT_JID, DEFAULT_SERVICE } from './client-flags.ts'
import { EXIT_HELP, type ExitCode } from './exit.ts'
import type { Io } from './io.ts'
import { outputOption } from './options.ts'
import { pub, type PubFlags } from './pub.ts'
import { request, type RequestFlags } from './request.ts'
import { sub, type SubFlags } from './sub.ts'

const CLIENT_HELP = `
Where to connect (a flag beats its variable, which beats what fits 'xmq dev'):
  --service        XMQ_SERVICE          ${DEFAULT_SERVICE}
  --jid            XMQ_JID              ${DEFAULT_JID}
  --password-file  XMQ_PASSWORD_FILE
                   XMQ_PASSWORD         on this machine: the account's name, as 'xmq dev' accepts it
There is no flag for a password: every user of the machine could read it.
${EXIT_HELP}`

/** Adds `pub`, `sub` and `request`. */
export function addClientCommands(program: Command, io: Io, done: (code: ExitCode) => void): void {
  addClientOptions(program.command('pub').description('publish a message'))
    .argument('<queue>', "the queue's address")
    .argument('<topic>', 'the topic')
    .argument('[body]', 'the message; read from stdin where it is left out')
    .option('--json', 'the message is JSON (default: text)')
    .option('--lines', 'each line of stdin is a message')
    .option('--connect-timeout <duration>', 'give up connecting after', '5s')
    .option('--timeout <duration>', 'give up on the queue after', '30s')
    .addHelpText(
      'after',
      `
--output json prints an object a message, once the queue has taken or refused it: its id and 'ok' or 'error', with --lines its
line. A message is text or JSON; binary data goes as base64.
${CLIENT_HELP}

Examples:
  $ xmq pub queue1.localhost greetings "hello"
  $ echo hello | xmq pub queue1.localhost greetings
  $ xmq pub queue1.localhost images.thumbnail --json '{"url":"https://example.org/a.png"}'
  $ seq 1 100 | xmq pub queue1.localhost numbers --lines`,
    )
    .action(async (queue: string, topic: string, body: string | undefined, flags: PubFlags) =>
      done(await pub(io, { queue, topic, body }, flags)),
    )
  addClientOptions(program.command('sub').description('print the messages of a topic, a line each, until Ctrl-C'))
    .argument('<queue>', "the queue's address")
    .argument('<topic>', 'the topic')
    .option('-n, --count <number>', 'end after so many messages')
    .option('--reply <body>', 'answer requests with this text; without it they fail')
    .option('--json', 'the reply is JSON')
    .option('--timeout <duration>', 'give up when not subscribed after', '30s')
    .addHelpText(
      'after',
      `
Text and JSON are printed as they are; --output json adds topic, id and sender, one object a line.
${CLIENT_HELP}

Examples:
  $ xmq sub queue1.localhost greetings
  $ xmq sub queue2.localhost news --count 10 --output json | jq .payload
  $ xmq sub queue1.localhost add --json --reply '{"sum":3}'`,
    )
    .action(async (queue: string, topic: string, flags: SubFlags) => done(await sub(io, { queue, topic }, flags)))
  addClientOptions(program.command('request').description('ask one worker and print its answer'))
    .argument('<queue>', "the queue's address")
    .argument('<topic>', 'the topic')
    .argument('[body]', 'what to ask; read from stdin where it is left out and stdin is a pipe')
    .option('--json', 'the body is JSON (default: text)')
    .option('--connect-timeout <duration>', 'give up connecting after', '5s')
    .option('--timeout <duration>', 'give up on the answer after', '30s')
    .addHelpText(
      'after',
      `${CLIENT_HELP}

Examples:
  $ xmq request queue1.localhost add --json '{"a":1,"b":2}'
  $ xmq request queue1.localhost time --timeout 5s --output json`,
    )
    .action(async (queue: string, topic: string, body: string | undefined, flags: RequestFlags) =>
      done(await request(io, { queue, topic, body }, flags)),
    )
}

function addClientOptions(command: Command): Command {
  return command
    .option('-s, --service <url>', 'the XMPP server: xmpp://host:port, xmpps://, ws:// or wss://')
    .option('-j, --jid <jid>', 'the account, user@domain')
    .option('--password-file <file>', "a file with the account's password")
    .option('--ca <file>', "PEM certificates to trust in place of the system's")
    .addOption(outputOption())
}
