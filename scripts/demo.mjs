/**
 * The first minute: an XMPP server with a broker, two workers and a producer, each a process of its own, and what they
 * do in lines for people. Nothing here is faked: what is shown is what the processes printed.
 */
import { relative, resolve } from 'node:path'
import { Part, PartError } from './parts.mjs'
import { root } from './setup.mjs'

const WORKERS = ['worker 1', 'worker 2']
/** As many as the producer example places with --once. */
const ORDERS = 4
/** Ctrl-C comes from the terminal and, where npm's shell has become this process, from npm again: that is one signal. */
const REPEATED_MS = 500

const colours = process.stdout.isTTY && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
const paint = (code) => (text) => (colours ? `\x1b[${code}m${text}\x1b[0m` : text)
const bold = paint(1)
const dim = paint(2)
const green = paint(32)
const cyan = paint(36)
const PAINTS = { broker: paint(35), 'worker 1': paint(32), 'worker 2': paint(33), producer: paint(36) }
const NAME_WIDTH = Math.max(...Object.keys(PAINTS).map((name) => name.length))

/** The columns of a line: who, and what it did. */
function show(name, text) {
  console.log(`  ${PAINTS[name](name.padEnd(NAME_WIDTH))}  ${text}`)
}

/** A part's lines begin with its own name, which has a column here. */
const shower = (name) => (line) => show(name, line.startsWith(`${name} `) ? line.slice(name.length + 1) : line)

/**
 * @param {{ once: boolean, port: number | undefined }} options
 * @returns {Promise<number>} the exit code
 */
export async function demo({ once, port }) {
  const parts = []
  const keep = (part) => {
    parts.push(part)
    return part
  }
  const stop = stopSignal()
  try {
    const ready = await Promise.race([present(keep, port), stop.asked])
    if (ready !== undefined) {
      if (once) return 0
      invite(ready)
      const ended = parts.filter((part) => part.name !== 'producer').map((part) => part.exited.then(() => part))
      const first = await Promise.race([stop.asked, ...ended])
      if (first !== undefined) throw first.failure('ended')
    }
    console.log(dim('\nStopping ...'))
    return 0
  } catch (error) {
    if (!(error instanceof PartError)) throw error
    console.error(`\n${error.message}`)
    return 1
  } finally {
    stop.release()
    await stopInOrder(parts)
  }
}

/** Starts everything and plays the sample. Returns what there is to connect to, once it was processed. */
async function present(keep, port) {
  console.log(`\n${bold('XMQ: a message broker on an XMPP server, and workers on it')}\n`)
  const ports = port === undefined ? [] : ['--port', String(port), '--websocket-port', '0']
  const broker = keep(new Part('broker', ['packages/xmq/bin/xmq.js', 'dev', '--output', 'json', ...ports]))
  const ready = await readiness(broker, port)
  show('broker', `serves ${ready.queues.map(({ address }) => address).join(' and ')} on ${ready.service}`)

  const env = { XMQ_SERVICE: ready.service }
  const workers = WORKERS.map((name) =>
    keep(
      new Part(name, ['examples/worker/dist/worker.js'], { env: { ...env, WORKER_NAME: name }, onLine: shower(name) }),
    ),
  )
  await Promise.all(
    workers.map((worker) => worker.line("'ready for prices.get'", (line) => line.endsWith('ready for prices.get'))),
  )

  const startedAt = performance.now()
  const producer = keep(
    new Part('producer', ['examples/producer/dist/producer.js', '--once'], { env, onLine: shower('producer') }),
  )
  await producer.succeeded()
  for (let number = 1; number <= ORDERS; number++) {
    const what = `order ${number}`
    await Promise.any(workers.map((worker) => worker.line(what, (line) => line.includes(`got ${what}:`)))).catch(
      (error) => {
        throw error.errors[0]
      },
    )
  }
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
  const shares = workers.map((worker) => worker.lines.filter((line) => line.includes(' got order ')).length)
  console.log(
    `\n  ${green('✓')} ${ORDERS} questions answered and ${ORDERS} orders handled in ${seconds} s, by turns: ` +
      `${WORKERS.map((name, index) => `${name} took ${shares[index]}`).join(', ')}.\n`,
  )
  return ready
}

/** What `xmq dev` says when it serves; when it cannot, its own words say why. */
async function readiness(broker, port) {
  const line = await broker.line("'ready' or 'error'", (text) => /^\{"(event":"ready|error)"/.test(text))
  const { error, ...ready } = JSON.parse(line)
  if (error === undefined) return ready
  throw new PartError(`The broker could not start: ${error.code === 'conflict' ? portTaken(port) : error.text}`)
}

/** In the words of `npm start`, whose flags are not those of `xmq dev`. */
function portTaken(port) {
  const taken = port === undefined ? 'port 5222, or 5280 for browsers, is taken' : `port ${port} is taken`
  return `${taken}. Is another \`npm start\`, \`xmq dev\` or XMPP server running? Any free port: npm start -- --port 0`
}

/** What one can connect to now, and what to type for it. */
function invite({ service, websocket, domain, queues }) {
  const what = { any: 'each message goes to one subscriber', all: 'each message goes to every subscriber' }
  const [first] = queues
  const elsewhere = service.endsWith(':5222') ? '' : ` --service ${service}`
  const here = relative(process.env.INIT_CWD ?? process.cwd(), root)
  const project = relative(root, resolve(root, '..', 'my-worker'))
  console.log(
    [
      bold('Connect to it'),
      `  service   ${cyan(service)}${websocket === undefined ? '' : `, in browsers ${cyan(websocket)}`}`,
      `  accounts  any name@${domain}, made at its first login, with any password`,
      ...queues.map(
        ({ address, type }, index) =>
          `  ${index === 0 ? 'queues   ' : '         '} ${cyan(address)}  ${type}: ${what[type]}`,
      ),
      '',
      bold(`Type in another terminal${here === '' ? '' : `, in ${root}`}`),
      `  npx xmq sub ${first.address} greetings${elsewhere}`,
      `  echo hi | npx xmq pub ${first.address} greetings${elsewhere}`,
      `  npx xmq request ${first.address} prices.get '{"drink":"espresso","cups":2}' --json${elsewhere}`,
      `  npx xmq-worker new ${project}`,
      '',
      dim('The workers stay. Ctrl-C ends everything.'),
      '',
    ].join('\n'),
  )
}

/** Those that need the broker first; two at a time would only mix their last words. */
async function stopInOrder(parts) {
  const [broker, ...others] = parts
  await Promise.all(others.map((part) => part.stop()))
  await broker?.stop()
}

/**
 * `asked` resolves, with nothing, on the first signal; a later one ends this process at once, and the parts with it.
 * SIGHUP is left alone: `nohup npm start` works, and a closed terminal ends this process, and the parts with it.
 */
function stopSignal() {
  let askedAt
  let ask
  const promise = new Promise((done) => {
    ask = done
  })
  const onSignal = () => {
    if (askedAt === undefined) {
      askedAt = performance.now()
      ask(undefined)
    } else if (performance.now() - askedAt > REPEATED_MS) process.exit(130)
  }
  const signals = ['SIGINT', 'SIGTERM']
  for (const signal of signals) process.on(signal, onSignal)
  // Whoever ends npm ends the shell between npm and this process, which passes nothing on.
  const parent = process.ppid
  const orphaned = setInterval(() => process.ppid !== parent && ask(undefined), 1_000)
  if (process.env.npm_lifecycle_event === undefined) clearInterval(orphaned)
  return {
    asked: promise,
    release() {
      clearInterval(orphaned)
      for (const signal of signals) process.off(signal, onSignal)
    },
  }
}
