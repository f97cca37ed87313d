/** A Redis of its own, with its append-only file on. */
import { existsSync } from 'node:fs'
import { dataFolder, whenListening } from './processes.mjs'

const PROGRAM = '/usr/bin/redis-server'

/** Whether it is installed. */
export function isRedisInstalled() {
  return existsSync(PROGRAM)
}

/** Starts it. @param appendfsync `everysec` or `always`: when the file is synced */
export async function startRedis(appendfsync, below) {
  const { findFreePorts, spawnGuarded, stopGuarded } = await import('../../test/servers/dist/index.js')
  const [port] = await findFreePorts(1)
  const { folder, remove } = dataFolder(`redis-${appendfsync}`, below)
  const settings = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '']
  const durable = ['--appendonly', 'yes', '--appendfsync', appendfsync, '--maxmemory-policy', 'noeviction']
  const server = await spawnGuarded(PROGRAM, [...settings, ...durable], { folder, cwd: folder })
  const stop = async () => {
    await stopGuarded(server)
    remove()
  }
  try {
    await whenListening(port, () => server.running)
  } catch (error) {
    await stop()
    throw new Error(`Redis did not start:\n${server.lines.slice(-20).join('\n')}`, { cause: error })
  }
  return { host: '127.0.0.1', port, pids: [server.pid], folder, stop }
}
