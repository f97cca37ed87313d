/** The commands that connect as a client. */
import { type Command, Option } from 'commander'
import { DEFAULT_JID, DEFAULT_SERVICE, MODES } from './client-flags.ts'
import type { AskFlags } from './ask-queue.ts'
import type { DlqFlags, DlqListFlags, DlqOrderFlags } from './dlq.ts'
import { EXIT_HELP, type ExitCode } from './exit.ts'
import type { Io } from './io.ts'
import { collect, outputOption } from './options.ts'
import type { PubFlags } from './pub.ts'
import type { RequestFlags } from './request.ts'
import type { SubFlags } from './sub.ts'

const CLIENT_HELP = `
Where to connect (a flag beats its variable, which beats what fits 'xmq dev'):
  --service        XMQ_SERVICE          ${DEFAULT_SERVICE}
  --jid            XMQ_JID              ${DEFAULT_JID}
  --password-file  XMQ_PASSWORD_FILE
                   XMQ_PASSWORD         on this machine: the account's name, as 'xmq dev' accepts it
  --ca             XMQ_CA
There is no flag for a password: every user of the machine could read it.
${EXIT_HELP}`

/** Adds `pub`, `sub`, `forget`, `request` and `dlq`. */
export function addClientCommands(program: Command, io: Io, done: (code: ExitCode) => void): void {
  addClientOptions(program.command('pub').description('publish a message'))
    .argument('<queue>', "the queue's address")
    .argument('<topic>', 'the topic')
    .argument('[body]', 'the message; read from stdin where it is left out')
    .option('--json', 'the message is JSON (default: text)')
    .option('--lines', 'each line of stdin is a message')
    .option('--id <id>', "the message's id; published again under it, it is stored once (default: a random one)")
    .option('--delay <duration>', 'deliver it not before this much later')
    .option('--ttl <duration>', 'give it up after: a dead letter')
    .option('--priority <number>', '0 to 9; 9 is delivered first (default: 0)')
    .option('--key <key>', 'messages of one topic and key are handled one at a time, in order')
    .option('--header <name=value>', 'a small text beside the message; repeat it for more', collect)
    .option('--connect-timeout <duration>', 'give up connecting after', '5s')
    .option('--timeout <duration>', 'give up on the queue after', '30s')
    .addHelpText(
      'after',
      `
--output json prints an object a message, once the queue has taken or refused it: its id and 'ok' or 'error', with --lines its
line, of a reliable queue seq, durability and duplicate. Many lines are on their way at once; results come in the order of the lines,
and the exit code tells whether any failed. A message is text or JSON; binary data goes as base64.

--delay, --ttl, --priority and --key need a reliable queue. With --lines they and --header are each message's; --id is refused there.
Durations are such as 500ms, 30s, 10m, 1h, 7d; at most 365d for a message.
${CLIENT_HELP}

Examples:
  $ xmq pub queue1.localhost greetings "hello"
  $ echo hello | xmq pub queue1.localhost greetings
  $ xmq pub queue1.localhost images.thumbnail --json '{"url":"https://example.org/a.png"}'
  $ seq 1 100 | xmq pub queue1.localhost numbers --lines
  $ xmq pub queue1.localhost orders.new --json '{"total":12}' --id order-42 --key shop-7 --ttl 1h --header source=till`,
    )
    .action(async (queue: string, topic: string, body: string | undefined, flags: PubFlags) => {
      const { pub } = await import('./pub.ts')
      done(await pub(io, { queue, topic, body }, flags))
    })
  addClientOptions(program.command('sub').description('print the messages of a topic, a line each, until Ctrl-C'))
    .argument('<queue>', "the queue's address")
    .argument('<topic>', 'the topic')
    .option('-n, --count <number>', 'end after so many messages')
    .option('--name <name>', "join, or make, this durable subscription of the account in an 'all' queue")
    .option('--reply <body>', 'answer requests with this text; without it they fail')
    .option('--json', 'the reply is JSON')
    .option('--timeout <duration>', 'give up when not subscribed after', '30s')
    .addHelpText(
      'after',
      `
Text and JSON are printed as they are; --output json adds topic, id and sender, of a reliable queue seq and attempt, one object a
line. On a reliable queue the topic may be a pattern: 'news.*' (one segment) or 'news.>' (the rest).

With --name an 'all' queue keeps what is published from then on, also while nobody is there. Those of one account who give the same
name share it; it is to one topic or pattern. It ends with 'xmq forget', or when nobody joins it for long.
${CLIENT_HELP}

Examples:
  $ xmq sub queue1.localhost greetings
  $ xmq sub queue2.localhost news --count 10 --output json | jq .payload
  $ xmq sub queue2.localhost 'news.>' --name reader
  $ xmq sub queue1.localhost add --json --reply '{"sum":3}'`,
    )
    .action(async (queue: string, topic: string, flags: SubFlags) => {
      const { sub } = await import('./sub.ts')
      done(await sub(io, { queue, topic }, flags))
    })
  addAskOptions(
    program
      .command('forget')
      .description("end a durable subscription of the account in an 'all' queue, and all that waits in it"),
  )
    .argument('<queue>', "the queue's address")
    .argument('<name>', "its name, as 'xmq sub --name' has it; of the SDK's Worker NAME:TOPIC")
    .addHelpText(
      'after',
      `
What waits in it is gone. Sessions that are subscribed to it get nothing more, and no word.
${CLIENT_HELP}

Examples:
  $ xmq forget queue2.localhost reader
  $ xmq forget queue2.localhost 'billing:orders.>' --jid billing@localhost`,
    )
    .action(async (queue: string, name: string, flags: AskFlags) => {
      const { forget } = await import('./forget.ts')
      done(await forget(io, { queue, name }, flags))
    })
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
    .action(async (queue: string, topic: string, body: string | undefined, flags: RequestFlags) => {
      const { request } = await import('./request.ts')
      done(await request(io, { queue, topic, body }, flags))
    })
  addDeadLetterCommands(program, io, done)
}

function addDeadLetterCommands(program: Command, io: Io, done: (code: ExitCode) => void): void {
  const dlq = program
    .command('dlq')
    .description("a queue's dead letters: messages that were given up (for the queue's admins)")
    .addHelpText(
      'after',
      `
Examples:
  $ xmq dlq ls jobs.localhost --topic images.thumbnail
  $ xmq dlq show jobs.localhost 1044
  $ xmq dlq replay jobs.localhost 1044 1045
  $ xmq dlq purge jobs.localhost --all --topic images.thumbnail`,
    )
  addDeadLetterOptions(dlq.command('ls').description('list dead letters, a line each, the oldest first'))
    .argument('<queue>', "the queue's address")
    .option('-t, --topic <topic>', 'only of this topic, exact')
    .option('-n, --limit <number>', 'most that are listed', '100')
    .option('--after <seq>', 'only those with a higher seq')
    .option('--content', 'with headers and payload')
    .addHelpText(
      'after',
      `${CLIENT_HELP}

Examples:
  $ xmq dlq ls jobs.localhost
  $ xmq dlq ls jobs.localhost --output json | jq 'select(.reason == "rejected") | .seq'`,
    )
    .action(async (queue: string, flags: DlqListFlags) => {
      const { dlqList } = await import('./dlq.ts')
      done(await dlqList(io, queue, flags))
    })
  addDeadLetterOptions(dlq.command('show').description('print one dead letter with its history and payload'))
    .argument('<queue>', "the queue's address")
    .argument('<seq>', "its number, as 'xmq dlq ls' lists it")
    .addHelpText('after', `${CLIENT_HELP}\n\nExamples:\n  $ xmq dlq show jobs.localhost 1044 --output json`)
    .action(async (queue: string, seq: string, flags: DlqFlags) => {
      const { dlqShow } = await import('./dlq.ts')
      done(await dlqShow(io, { queue, seq }, flags))
    })
  const orders = [
    ['replay', 'put dead letters back: ready at once, with no failures and no ttl'],
    ['purge', 'delete dead letters for good'],
  ] as const
  for (const [action, description] of orders) {
    addDeadLetterOptions(dlq.command(action).description(description))
      .argument('<queue>', "the queue's address")
      .argument('[seq...]', "their numbers, as 'xmq dlq ls' lists them")
      .option('--all', 'all of them')
      .option('-t, --topic <topic>', 'with --all: only of this topic, exact')
      .addHelpText(
        'after',
        `${CLIENT_HELP}

Examples:
  $ xmq dlq ${action} jobs.localhost 1044 1045
  $ xmq dlq ${action} jobs.localhost --all --topic images.thumbnail`,
      )
      .action(async (queue: string, seqs: string[], flags: DlqOrderFlags) => {
        const { dlqOrder } = await import('./dlq.ts')
        done(await dlqOrder(io, { action, queue, seqs }, flags))
      })
  }
}

function addDeadLetterOptions(command: Command): Command {
  return addAskOptions(command)
    .option('--subscription <name>', "of a durable subscription of an 'all' queue; with --owner")
    .option('--owner <jid>', 'the account that the durable subscription belongs to')
}

function addAskOptions(command: Command): Command {
  return addClientOptions(command)
    .option('--connect-timeout <duration>', 'give up connecting after', '5s')
    .option('--timeout <duration>', 'give up on an answer of the broker after', '10s')
}

function addClientOptions(command: Command): Command {
  return command
    .option('-s, --service <url>', 'the XMPP server: xmpp://host:port, xmpps://, ws:// or wss://')
    .option('-j, --jid <jid>', 'the account, user@domain')
    .option('--password-file <file>', "a file with the account's password")
    .option('--ca <file>', "PEM certificates to trust in place of the system's")
    .addOption(new Option('--mode <mode>', 'how to speak to the queue; auto asks it').choices(MODES).default('auto'))
    .addOption(outputOption())
}
