/**
 * Packs the packages of an XMQ checkout as a registry would serve them, for projects made before XMQ is published.
 *
 *   packages/NAME --copy of what package.json's `files` names--> staging --npm pack--> NAME-VERSION.tgz
 *
 * `workspace:` dependencies become exact versions, as on publishing; the new project's `overrides` lead them to the
 * tarballs beside it.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { XmqError } from '@xmq/protocol'

/** One package, packed. */
export interface PackedPackage {
  readonly name: string
  /** The tarball's file name. */
  readonly file: string
  readonly content: Uint8Array
}

interface Manifest {
  readonly name: string
  readonly version: string
  readonly files?: readonly string[]
  readonly dependencies?: Readonly<Record<string, string>>
  readonly devDependencies?: unknown
}

/** What a worker project installs by name; what these need of XMQ is found by following their dependencies. */
const WANTED: readonly string[] = ['@xmq/client', '@xmq/testing', 'xmq', 'xmq-worker']

const NPM_OUTPUT_MAX = 64 * 1024

/** The root of the checkout that `packageRoot` is a workspace package of; `undefined` where it was installed. */
export function checkoutOf(packageRoot: string): string | undefined {
  const root = join(packageRoot, '..', '..')
  return existsSync(join(root, 'pnpm-workspace.yaml')) && existsSync(join(root, 'packages', 'protocol'))
    ? root
    : undefined
}

/**
 * Packs all that a worker project needs of XMQ.
 *
 * @throws XmqError `invalid-config` where the checkout is not built, `internal` where npm fails
 */
export async function packCheckout(root: string): Promise<PackedPackage[]> {
  const folders = await foldersByName(root)
  const wanted = await closure(folders)
  const staging = await mkdtemp(join(tmpdir(), 'xmq-pack-'))
  try {
    const staged: string[] = []
    for (const { folder, manifest } of wanted) {
      const target = join(staging, basename(folder))
      await stage(folder, manifest, wanted, target)
      staged.push(target)
    }
    const out = join(staging, 'out')
    await mkdir(out)
    await runNpm(['pack', '--silent', '--ignore-scripts', '--pack-destination', out, ...staged], staging)
    return await Promise.all(
      wanted.map(async ({ manifest: { name, version } }) => {
        const file = `${name.replace('@', '').replace('/', '-')}-${version}.tgz`
        return { name, file, content: await readFile(join(out, file)) }
      }),
    )
  } finally {
    await rm(staging, { recursive: true, force: true })
  }
}

interface WorkspacePackage {
  readonly folder: string
  readonly manifest: Manifest
}

async function foldersByName(root: string): Promise<Map<string, WorkspacePackage>> {
  const packages = new Map<string, WorkspacePackage>()
  for (const entry of await readdir(join(root, 'packages'))) {
    const folder = join(root, 'packages', entry)
    if (!existsSync(join(folder, 'package.json'))) continue
    const manifest = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as Manifest
    packages.set(manifest.name, { folder, manifest })
  }
  return packages
}

/** The wanted packages and all that they need of the workspace, each once. */
async function closure(packages: ReadonlyMap<string, WorkspacePackage>): Promise<WorkspacePackage[]> {
  const found = new Map<string, WorkspacePackage>()
  const open = [...WANTED]
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    const entry = packages.get(name)
    if (entry === undefined || found.has(name)) continue
    found.set(name, entry)
    open.push(...Object.keys(entry.manifest.dependencies ?? {}).filter((dependency) => packages.has(dependency)))
  }
  return [...found.values()].sort((left, right) => left.manifest.name.localeCompare(right.manifest.name))
}

async function stage(
  folder: string,
  manifest: Manifest,
  workspace: readonly WorkspacePackage[],
  target: string,
): Promise<void> {
  if (!['index.js', 'main.js'].some((file) => existsSync(join(folder, 'dist', file)))) {
    throw new XmqError('invalid-config', `${manifest.name} is not built: run \`npm run build\` at the checkout's root`)
  }
  await mkdir(target, { recursive: true })
  for (const name of [...(manifest.files ?? ['dist']), 'README.md', 'LICENSE']) {
    const from = join(folder, name)
    if (!existsSync(from)) continue
    await cp(from, join(target, name), {
      recursive: true,
      filter: (path) => !['.test', '.tsbuildinfo', 'node_modules'].includes(basename(path)),
    })
  }
  const versions = new Map(workspace.map((entry) => [entry.manifest.name, entry.manifest.version]))
  const dependencies = Object.fromEntries(
    Object.entries(manifest.dependencies ?? {}).map(([name, range]) => [name, versions.get(name) ?? range]),
  )
  // devDependencies stay behind: nobody installs them, and `workspace:` in them would be read.
  const published = { ...manifest, dependencies, devDependencies: undefined }
  await writeFile(join(target, 'package.json'), JSON.stringify(published, undefined, 2))
}

function runNpm(args: readonly string[], cwd: string): Promise<void> {
  // npm names itself to what it runs; without it, `npm` on the PATH (a command file on Windows) does.
  const self = process.env['npm_execpath']
  const [command, first] = self !== undefined && /npm-cli\.c?js$/.test(self) ? [process.execPath, [self]] : ['npm', []]
  const env = { ...process.env, npm_config_loglevel: 'error', npm_config_update_notifier: 'false' }
  return new Promise((resolve, reject) => {
    const shell = command === 'npm' && process.platform === 'win32'
    const child = spawn(command, [...first, ...args], { cwd, env, shell, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    const collect = (text: string): void => {
      output = (output + text).slice(-NPM_OUTPUT_MAX)
    }
    child.stdout.setEncoding('utf8').on('data', collect)
    child.stderr.setEncoding('utf8').on('data', collect)
    child.on('error', (error) => reject(new XmqError('internal', `npm could not be started: ${error.message}`)))
    child.on('close', (code) => {
      if (code === 0) resolve()
      else reject(new XmqError('internal', `npm pack failed with exit code ${code}:\n${output.trimEnd()}`))
    })
  })
}
