/**
 * `xmq-worker new`: writes a worker project from `templates/worker`.
 *
 * Nothing is left half-made: what can be refused is refused before the first file, and the packages of a checkout are
 * packed before anything is written.
 */
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { checkoutOf, type PackedPackage, packCheckout } from './checkout.ts'
import { mistake } from './terminal.ts'

/** What {@link createProject} is asked to do. */
export interface ProjectRequest {
  /** The project's directory, absolute; its last part becomes the package's name. */
  readonly directory: string
  /**
   * Write into a directory that is not empty; files of the same names are replaced.
   * @default false
   */
  readonly force?: boolean
}

/** What {@link createProject} has made. */
export interface CreatedProject {
  readonly name: string
  readonly directory: string
  /** Relative to the directory, with `/`, in order. */
  readonly files: readonly string[]
}

/** The root of this package, from `src` as from `dist`. */
const PACKAGE_ROOT: string = join(dirname(fileURLToPath(import.meta.url)), '..')

/** npm takes dot files out of a published package; the templates carry them under these names. */
const RENAMED: ReadonlyMap<string, string> = new Map([
  ['_gitignore', '.gitignore'],
  ['_dockerignore', '.dockerignore'],
  ['_env.example', '.env.example'],
])

/** Left behind by version control and file managers: a directory with only these counts as empty. */
const NOT_CONTENT: ReadonlySet<string> = new Set(['.git', '.DS_Store', 'Thumbs.db'])

const NAME_LENGTH_MAX = 214
const RESERVED_NAMES: ReadonlySet<string> = new Set([
  'node_modules',
  'favicon.ico',
  'xmq',
  'xmq-worker',
  'zod',
  'vitest',
])

/**
 * Writes a new project. From a checkout of XMQ it depends on the checkout's own packages, packed into `vendor/`; else on
 * the published ones of this very version.
 *
 * @param pack the tarballs for `vendor/`; none where XMQ is published
 * @throws XmqError `invalid-config` for a name that npm refuses or a directory that is not empty
 */
export async function createProject(
  request: ProjectRequest,
  pack: () => Promise<readonly PackedPackage[]> = packOwn,
): Promise<CreatedProject> {
  const name = projectName(request.directory)
  const isNew = await refuseContent(request.directory, request.force ?? false)
  const packed = await pack()
  const files = new Map<string, string | Uint8Array>()
  for (const { file, content } of packed) files.set(`vendor/${file}`, content)
  for (const [path, content] of await readTemplate(join(PACKAGE_ROOT, 'templates', 'worker'))) {
    files.set(
      path,
      path === 'package.json' ? await fillManifest(content, name, packed) : fillText(content, name, packed),
    )
  }
  try {
    for (const [path, content] of files) {
      const target = join(request.directory, path)
      await mkdir(dirname(target), { recursive: true })
      await writeFile(target, content)
    }
  } catch (error) {
    if (isNew) await rm(request.directory, { recursive: true, force: true })
    throw error
  }
  return { name, directory: request.directory, files: [...files.keys()].sort() }
}

function packOwn(): Promise<readonly PackedPackage[]> {
  const checkout = checkoutOf(PACKAGE_ROOT)
  return checkout === undefined ? Promise.resolve([]) : packCheckout(checkout)
}

/** The package's name: the directory's own, since two names for one thing help nobody. */
function projectName(directory: string): string {
  const name = basename(directory)
  const proposal = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]+/g, '-')
    .replaceAll(/^[._-]+|[._-]+$/g, '')
  if (name === '')
    throw mistake("The file system's root cannot be a project: name a directory, e.g. xmq-worker new my-worker")
  const fits = /^[a-z0-9][a-z0-9._-]*$/.test(name) && name.length <= NAME_LENGTH_MAX && !RESERVED_NAMES.has(name)
  if (fits) return name
  const better = proposal === '' || RESERVED_NAMES.has(proposal) ? 'my-worker' : proposal.slice(0, NAME_LENGTH_MAX)
  throw mistake(
    `'${name}' cannot be a package's name: npm takes lower-case letters, digits, '-', '_' and '.', beginning with a letter or digit, and no name of a package that the project uses. Try: xmq-worker new ${better}`,
  )
}

/** True where the directory does not exist yet. */
async function refuseContent(directory: string, force: boolean): Promise<boolean> {
  const found = await stat(directory).catch(() => undefined)
  if (found === undefined) return true
  if (!found.isDirectory()) throw mistake(`${directory} is a file: name a directory that does not exist yet`)
  const content = (await readdir(directory)).filter((entry) => !NOT_CONTENT.has(entry))
  if (content.length > 0 && !force) {
    const shown = content.slice(0, 3).join(', ') + (content.length > 3 ? ', …' : '')
    throw mistake(`${directory} is not empty (${shown}): name another directory, or add --force to write into it`)
  }
  return false
}

async function readTemplate(folder: string): Promise<Map<string, string>> {
  const files = new Map<string, string>()
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = relative(folder, join(entry.parentPath, entry.name)).split(sep)
    // Present only in a checkout, where the templates are type-checked in place.
    if (!entry.isFile() || path.includes('node_modules') || path.includes('dist')) continue
    const last = path.pop() ?? ''
    files.set(
      [...path, RENAMED.get(last) ?? last].join('/'),
      await readFile(join(entry.parentPath, entry.name), 'utf8'),
    )
  }
  return files
}

function fillText(text: string, name: string, packed: readonly PackedPackage[]): string {
  return text.replaceAll('my-worker', name).replaceAll('{{vendor}}', packed.length > 0 ? 'COPY vendor ./vendor\n' : '')
}

interface Manifest {
  name: string
  dependencies: Record<string, string>
  devDependencies: Record<string, string>
  overrides?: Record<string, string>
}

/** The template's versions of XMQ's packages are placeholders: all packages of XMQ are released under one version. */
async function fillManifest(text: string, name: string, packed: readonly PackedPackage[]): Promise<string> {
  const own = JSON.parse(await readFile(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string }
  const manifest = JSON.parse(text) as Manifest
  manifest.name = name
  const sources = new Map(packed.map((entry) => [entry.name, `file:vendor/${entry.file}`]))
  for (const dependencies of [manifest.dependencies, manifest.devDependencies]) {
    for (const [dependency, version] of Object.entries(dependencies)) {
      if (version === '0.0.0') dependencies[dependency] = sources.get(dependency) ?? own.version
    }
  }
  // What XMQ's packages need of each other must come from vendor/ too: no registry has it.
  if (sources.size > 0) manifest.overrides = overridesOf(manifest, sources)
  return `${JSON.stringify(manifest, undefined, 2)}\n`
}

function overridesOf(manifest: Manifest, sources: ReadonlyMap<string, string>): Record<string, string> {
  const overrides: Record<string, string> = {}
  for (const [name, source] of sources) {
    // npm refuses an override of a direct dependency unless it refers to it.
    const direct = name in manifest.dependencies || name in manifest.devDependencies
    overrides[name] = direct ? `$${name}` : source
  }
  return overrides
}
