/**
 * Installs the real XMPP servers that the suites run on: `npm run servers:install`. Debian and Ubuntu, as root.
 *
 * 1. No daemon is started: the suites start their own, in folders of their own. A policy-rc.d says so while apt-get runs.
 * 2. A policy-rc.d that was there comes back, whatever happens.
 */
import { spawn } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** ejabberd and Prosody; xmllint for the examples in docs/protocol.md. */
const PACKAGES = ['ejabberd', 'prosody', 'libxml2-utils']
const POLICY = '/usr/sbin/policy-rc.d'
const POLICY_KEPT = `${POLICY}.before-xmq`
/** invoke-rc.d: 101 is "forbidden by policy". */
const POLICY_TEXT = '#!/bin/sh\n# For the time of an installation by XMQ: start no daemon.\nexit 101\n'

/** Why an installation cannot be tried here, or `undefined`. */
export function installationObstacle() {
  if (!existsSync('/usr/bin/apt-get')) return 'only Debian and Ubuntu are known here (no apt-get found)'
  if (process.getuid?.() !== 0) return 'it needs root: sudo npm run servers:install'
  return undefined
}

/**
 * Installs what is missing.
 *
 * @param {{ log?: (line: string) => void }} [options]
 * @throws {Error} with apt-get's output when it fails
 */
export async function installServers({ log = console.log } = {}) {
  await installPackages(PACKAGES, { log })
}

/**
 * Installs Debian packages without starting what they bring.
 *
 * @param {readonly string[]} packages
 * @param {{ log?: (line: string) => void }} [options]
 * @throws {Error} with apt-get's output when it fails, or why it was not tried
 */
export async function installPackages(packages, { log = console.log } = {}) {
  const obstacle = installationObstacle()
  if (obstacle !== undefined) throw new Error(`${packages.join(', ')} cannot be installed: ${obstacle}`)
  log(`Installing ${packages.join(', ')} with apt-get ...`)
  const install = ['install', '-y', '-q', '--no-install-recommends', ...packages]
  forbidDaemons()
  try {
    // The lists may be absent (a container image) or name versions that the mirror has replaced.
    if (!(await succeeds(install))) {
      await run(['update', '-q'])
      await run(install)
    }
  } finally {
    allowDaemons()
  }
}

function forbidDaemons() {
  // One that says it is ours was left by a run that was killed: what it had put aside is the true one.
  if (existsSync(POLICY) && readFileSync(POLICY, 'utf8') !== POLICY_TEXT) renameSync(POLICY, POLICY_KEPT)
  writeFileSync(POLICY, POLICY_TEXT)
  chmodSync(POLICY, 0o755)
}

function allowDaemons() {
  rmSync(POLICY, { force: true })
  if (existsSync(POLICY_KEPT)) renameSync(POLICY_KEPT, POLICY)
}

async function succeeds(args) {
  try {
    await run(args)
    return true
  } catch {
    return false
  }
}

function run(args) {
  return new Promise((resolve, reject) => {
    const child = spawn('apt-get', args, {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk) => {
        output += chunk
      })
    }
    child.on('error', reject)
    child.on('close', (code) => {
      if (code === 0) resolve()
      else reject(new Error(`apt-get ${args[0]} failed with ${code}:\n${output.slice(-4_000)}`))
    })
  })
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    await installServers()
    console.log('Installed. `npm test` runs on them now.')
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
