/** What `npm run bench -- --peers` is asked for. */
import { tmpdir } from 'node:os'
import { positiveOption, readOptions, serversOption } from '../usage.mjs'

export const HELP = `npm run bench -- --peers [options]

  --rounds N            rounds, all systems in turn in each; medians are printed            (3)
  --seconds S           how long producers publish in each round                            (3)
  --messages N          publish so many in each round instead
  --rate N              messages a second while latency is measured                         (500)
  --connections N       producers, and workers, with a connection each                      (4)
  --window N            most unconfirmed messages of a producer                             (500)
  --unacked N           most unacked messages of a worker: prefetch, credit, concurrency    (200)
  --bytes N             size of a message's JSON                                            (200)
  --server KIND[,KIND]  XMPP servers for XMQ: embedded, prosody, ejabberd                   (all that are installed)
  --only NAME[,NAME]    only systems whose name begins so: rabbitmq-quorum, bullmq, xmq, …
  --data DIR            where the systems keep their data; a disk, not memory               (${tmpdir()})
  --json FILE           write every figure
  --profile DIR         write CPU profiles of XMQ's processes
  --no-install          do not install what is missing
  --no-setup            with what is built
  --help
`
const OPTIONS = {
  peers: { type: 'boolean' },
  rounds: { type: 'string', default: '3' },
  seconds: { type: 'string', default: '3' },
  messages: { type: 'string' },
  rate: { type: 'string', default: '500' },
  connections: { type: 'string', default: '4' },
  window: { type: 'string', default: '500' },
  unacked: { type: 'string', default: '200' },
  bytes: { type: 'string', default: '200' },
  server: { type: 'string', multiple: true },
  only: { type: 'string', multiple: true },
  data: { type: 'string' },
  json: { type: 'string' },
  profile: { type: 'string' },
  'no-install': { type: 'boolean' },
  'no-setup': { type: 'boolean' },
  help: { type: 'boolean' },
}
/** What was asked for. @throws {UsageError} */
export function parsePlan(args) {
  const values = readOptions(args, OPTIONS)
  const number = (name) => positiveOption(values, name)
  return {
    rounds: number('rounds'),
    seconds: number('seconds'),
    messages: values.messages === undefined ? undefined : number('messages'),
    rate: number('rate'),
    connections: number('connections'),
    window: number('window'),
    unacked: number('unacked'),
    bodyBytes: number('bytes'),
    servers: serversOption(values),
    only: values.only?.flatMap((names) => names.split(',')),
    data: values.data,
    json: values.json,
    profile: values.profile,
    mayInstall: values['no-install'] !== true,
    hasSetup: values['no-setup'] !== true,
    isHelp: values.help === true,
  }
}
