/**
 * A RabbitMQ of its own: its folder, its ports, an epmd of its own, guest on loopback. Started by its own script, so with the
 * flags that Debian's package gives it.
 */
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { dataFolder, whenListening } from './processes.mjs'

const SCRIPT = '/usr/lib/rabbitmq/bin/rabbitmq-server'

/** Whether it is installed. */
export function isRabbitInstalled() {
  return existsSync(SCRIPT)
}

/** Starts it. */
export async function startRabbit(below) {
  const { findFreePorts, spawnGuarded, stopGuarded } = await import('../../test/servers/dist/index.js')
  const [port, distribution, epmdPort] = await findFreePorts(3)
  const { folder, remove } = dataFolder('rabbitmq', below)
  const logPath = join(folder, 'out.log')
  writeFileSync(join(folder, 'rabbitmq.conf'), `listeners.tcp.default = 127.0.0.1:${port}\n`)
  writeFileSync(join(folder, 'plugins'), '[].\n')
  const env = {
    PATH: process.env.PATH,
    LANG: 'C.UTF-8',
    HOME: folder,
    ERL_EPMD_PORT: String(epmdPort),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_NODENAME: `bench${port}@localhost`,
    RABBITMQ_DIST_PORT: String(distribution),
    RABBITMQ_MNESIA_BASE: join(folder, 'data'),
    RABBITMQ_LOG_BASE: folder,
    RABBITMQ_LOGS: '-',
    RABBITMQ_CONFIG_FILE: join(folder, 'rabbitmq.conf'),
    RABBITMQ_CONF_ENV_FILE: join(folder, 'rabbitmq-env.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'plugins'),
    RABBITMQ_PID_FILE: join(folder, 'pid'),
    // As under systemd the script becomes the server, so that a signal to the one reaches the other. Nobody listens there.
    NOTIFY_SOCKET: join(folder, 'notify'),
  }
  const epmd = await spawnGuarded('epmd', ['-port', String(epmdPort), '-address', '127.0.0.1'], { env })
  const out = openSync(logPath, 'a')
  const server = await spawnGuarded(SCRIPT, [], { folder, cwd: folder, env, output: out })
  closeSync(out)
  const stop = async () => {
    await stopGuarded(server)
    epmd.signal('SIGTERM')
    await epmd.exited
    remove()
  }
  try {
    await whenListening(epmdPort, () => epmd.running)
    await whenListening(port, () => server.running)
  } catch (error) {
    const log = readFileSync(logPath, 'utf8').slice(-4_000)
    await stop()
    throw new Error(`RabbitMQ did not start:\n${log}`, { cause: error })
  }
  return { url: `amqp://guest:guest@127.0.0.1:${port}`, pids: [server.pid], folder, stop }
}
