/**
 * Everything that `npm start` and `npm test` need before they can do their job: the right Node, the dependencies and the
 * build. Plain Node without dependencies, since it runs before there are any.
 *
 *   nothing there  -> install (pinned pnpm, through npx) -> build (tsc -b) -> stamp
 *   nothing new    -> returns at once: two fingerprints are compared with node_modules/.xmq-setup.json
 *
 * 1. A stamp is written only after its step has succeeded, so an interrupted step is done again.
 * 2. Nothing is asked of the network when nothing changed.
 * 3. A changed install makes a new build: the stamp of the build contains that of the install.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The checkout's root, wherever the command was typed. */
export const root = join(dirname(fileURLToPath(import.meta.url)), '..')

const STAMP = join(root, 'node_modules', '.xmq-setup.json')
const NODE_MIN = [20, 19]
/** What a failed step shows of its output. */
const TAIL_LINES = 40
/** What is kept of a step's output, in characters. */
const OUTPUT_MAX = 256 * 1024
/** A step that takes longer says that it goes on, this often. */
const PROGRESS_MS = 10_000
/** npm and pnpm try again for minutes where there is no network: one more try and half a minute each do. */
const FETCH = { 'fetch-retries': '1', 'fetch-retry-mintimeout': '1000', 'fetch-timeout': '30000' }

/** A set-up step that failed, with a text that a person can act on. */
export class SetupError extends Error {
  name = 'SetupError'
}

/**
 * Brings the checkout to a state in which the built packages can be run.
 *
 * @param {{ quiet?: boolean, log?: (line: string) => void }} [options] `quiet` prints nothing unless a step fails
 * @returns {Promise<{ installed: boolean, built: boolean, ms: number }>} what had to be done, and how long it took
 * @throws {SetupError} when Node is too old or a step fails
 */
export async function setup({ quiet = false, log = console.log } = {}) {
  const startedAt = performance.now()
  const say = quiet ? () => {} : log
  requireNode()

  const manifests = workspaceFolders().map((folder) => join(folder, 'package.json'))
  const installPrint = fingerprintOfInstall(manifests)
  const stamp = readStamp()
  const installed = stamp.install !== installPrint || !modulesArePresent(manifests)
  if (installed) {
    writeStamp({})
    await step(say, 'Installing dependencies', 'installed', installCommand(), adviceOnInstall)
    writeStamp({ install: installPrint })
  }

  const buildPrint = fingerprintOfBuild(installPrint)
  const built = installed || stamp.build !== buildPrint || !outputsArePresent()
  if (built) {
    writeStamp({ install: installPrint })
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
    await step(say, 'Building the packages', 'built', { command: process.execPath, args: [tsc, '-b'] })
    writeStamp({ install: installPrint, build: buildPrint })
  }
  return { installed, built, ms: performance.now() - startedAt }
}

function requireNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  if (major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])) return
  throw new SetupError(
    `XMQ needs Node.js ${NODE_MIN.join('.')} or newer; this is ${process.versions.node} (${process.execPath}).\n` +
      'Install a current one from https://nodejs.org, or with a version manager: nvm install 22',
  )
}

/** The root and each package of pnpm-workspace.yaml (packages/*, examples/*). */
function workspaceFolders() {
  const folders = [root]
  for (const group of ['packages', 'examples']) {
    const parent = join(root, group)
    if (!existsSync(parent)) continue
    for (const name of readdirSync(parent).sort()) {
      if (existsSync(join(parent, name, 'package.json'))) folders.push(join(parent, name))
    }
  }
  return folders
}

function fingerprintOfInstall(manifests) {
  const hash = createHash('sha256')
  // A native module is built for one major of Node on one platform.
  hash.update(`${process.versions.modules} ${process.platform} ${process.arch}\n`)
  for (const file of [join(root, 'pnpm-lock.yaml'), join(root, 'pnpm-workspace.yaml'), ...manifests]) {
    hash
      .update(`${relative(root, file)}\n`)
      .update(readFileSync(file))
      .update('\n')
  }
  return hash.digest('hex')
}

/** False where someone has deleted a package's node_modules, or moved the folder and left them behind. */
function modulesArePresent(manifests) {
  return manifests.every((file) => {
    const manifest = JSON.parse(readFileSync(file, 'utf8'))
    const needed = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies })
    return needed.every((name) => existsSync(join(dirname(file), 'node_modules', name)))
  })
}

/** Names, sizes and times of what the compiler reads: reading the contents as well would cost more than it tells. */
function fingerprintOfBuild(installPrint) {
  const hash = createHash('sha256').update(installPrint)
  for (const file of ['tsconfig.json', 'tsconfig.base.json'].map((name) => join(root, name)))
    hash.update(describe(file))
  for (const folder of workspaceFolders().slice(1)) {
    const config = join(folder, 'tsconfig.json')
    if (!existsSync(config)) continue
    hash.update(describe(config))
    for (const file of filesBelow(join(folder, 'src'))) hash.update(describe(file))
  }
  return hash.digest('hex')
}

function describe(file) {
  const { size, mtimeMs } = statSync(file)
  return `${relative(root, file)} ${size} ${mtimeMs}\n`
}

/** False after `npm run clean`: each source must have its compiled file. */
function outputsArePresent() {
  return workspaceFolders()
    .slice(1)
    .every((folder) => {
      if (!existsSync(join(folder, 'tsconfig.json'))) return true
      const src = join(folder, 'src')
      return filesBelow(src)
        .filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'))
        .every((file) => existsSync(join(folder, 'dist', relative(src, file).replace(/\.ts$/, '.js'))))
    })
}

function filesBelow(folder) {
  if (!existsSync(folder)) return []
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort()
}

function readStamp() {
  try {
    return JSON.parse(readFileSync(STAMP, 'utf8'))
  } catch {
    return {}
  }
}

function writeStamp(stamp) {
  if (stamp.install === undefined && !existsSync(STAMP)) return
  mkdirSync(dirname(STAMP), { recursive: true })
  // By rename: a kill in the middle leaves the old stamp or the new one, never half of one.
  writeFileSync(`${STAMP}.new`, `${JSON.stringify(stamp)}\n`)
  renameSync(`${STAMP}.new`, STAMP)
}

function installCommand() {
  const { packageManager } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  // npx has just fetched the pinned pnpm: it need not look for the pin itself, which fails where a registry mirror lags behind.
  const fetch = Object.entries(FETCH).map(([name, value]) => `--config.${name}=${value}`)
  const pnpm = ['pnpm', 'install', '--frozen-lockfile', '--config.pmOnFail=ignore', ...fetch]
  // npm names itself to the scripts it runs: that one needs no PATH and no shell, on Windows neither.
  const npm = process.env.npm_execpath
  if (npm !== undefined && /npm-cli\.c?js$/.test(npm)) {
    return { command: process.execPath, args: [npm, 'exec', '--yes', `--package=${packageManager}`, '--', ...pnpm] }
  }
  const shell = process.platform === 'win32'
  return { command: 'npx', args: ['--yes', `--package=${packageManager}`, '--', ...pnpm], shell }
}

/** What to do about an installation that failed: the last line that is read. */
function adviceOnInstall(output) {
  const again = 'then run the same command again'
  const code = /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH)\b/.exec(output)?.[1]
  if (code !== undefined || /ERR_SOCKET_TIMEOUT|network (?:timeout|request)/i.test(output)) {
    return (
      `The npm registry could not be reached${code === undefined ? '' : ` (${code})`}. Connect this machine to the network, or set ` +
      `a proxy or mirror (npm config set proxy …, npm config set registry …), ${again}.`
    )
  }
  if (/\bENOSPC\b/.test(output)) return `The disk is full. Make room, ${again}.`
  if (/\b(EACCES|EPERM)\b/.test(output)) return `A folder cannot be written. Own ${root} and npm's cache, ${again}.`
  return `The dependencies were not installed; the lines above say why. Mend that, ${again}.`
}

/**
 * Runs one step; its output is shown only if it fails, and then only the end of it.
 * `advise` makes a last line of the output that tells what to do.
 */
function step(say, title, done, { command, args, shell = false }, advise = () => '') {
  const startedAt = performance.now()
  say(`${title} ...`)
  // npm warns of every key of the user's .npmrc that it does not know; pnpm asks before it replaces node_modules unless CI is set.
  const quiet = { npm_config_loglevel: 'error', npm_config_update_notifier: 'false', CI: 'true' }
  const env = { ...process.env, ...quiet, ...npmSettings(FETCH) }
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, env, shell, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    const collect = (chunk) => {
      output = (output + chunk).slice(-OUTPUT_MAX)
    }
    child.stdout.setEncoding('utf8').on('data', collect)
    child.stderr.setEncoding('utf8').on('data', collect)
    const stop = (signal) => {
      child.kill(signal)
      process.exit(signal === 'SIGINT' ? 130 : 143)
    }
    const signals = ['SIGINT', 'SIGTERM']
    for (const signal of signals) process.once(signal, stop)
    const elapsed = () => (performance.now() - startedAt) / 1000
    const progress = setInterval(() => say(`  still at it after ${elapsed().toFixed(0)} s`), PROGRESS_MS)
    const finish = (failure) => {
      clearInterval(progress)
      for (const signal of signals) process.off(signal, stop)
      if (failure === undefined) {
        say(`  ${done} in ${elapsed().toFixed(1)} s`)
        resolve()
      } else {
        // Where in npm's own code it failed helps nobody here.
        const lines = output
          .trimEnd()
          .split('\n')
          .filter((line) => !/^npm error\s+at /.test(line))
        const tail = lines.slice(-TAIL_LINES).join('\n')
        const parts = [`${title} failed: ${failure}`, tail, advise(output)]
        reject(new SetupError(parts.filter((part) => part !== '').join('\n\n')))
      }
    }
    child.on('error', (error) => {
      finish(error.code === 'ENOENT' ? `${command} was not found on the PATH; it comes with Node.js` : error.message)
    })
    child.on('close', (code, signal) => {
      finish(code === 0 ? undefined : code === null ? `ended by ${signal}` : `exit code ${code}`)
    })
  })
}

/** As npm reads settings from the environment. */
function npmSettings(settings) {
  return Object.fromEntries(
    Object.entries(settings).map(([name, value]) => [`npm_config_${name.replaceAll('-', '_')}`, value]),
  )
}

/** True where this file was started by itself, also through a symbolic link. */
function isMain() {
  return process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)
}

if (isMain()) {
  try {
    const { installed, built } = await setup({ quiet: process.argv.includes('--quiet') })
    if (!installed && !built && !process.argv.includes('--quiet')) console.log('Everything is installed and built.')
  } catch (error) {
    console.error(error instanceof SetupError ? error.message : error)
    process.exitCode = 1
  }
}
