import { configProblemsOf, describeConfig, type ConfigProblem } from '@xmq/broker'
import { XmqError } from '@xmq/protocol'
import { stringify } from 'yaml'
import { loadConfig, type ConfigFlags, type LoadedConfig } from './config-file.ts'
import { EXIT, exitCodeOf, type ExitCode } from './exit.ts'
import { paint, type Io, type OutputFormat } from './io.ts'

/** `xmq check-config`: checks everything that can be checked without a server, and prints the effective rules. */
export function checkConfig(io: Io, flags: ConfigFlags & { readonly output: OutputFormat }): ExitCode {
  let loaded: LoadedConfig
  try {
    loaded = loadConfig(io, flags)
  } catch (error) {
    const problems = flags.output === 'json' ? problemsOf(error) : undefined
    if (problems === undefined) throw error
    // The answer to what was asked, so on stdout as the other one.
    io.stdout.write(`${JSON.stringify({ valid: false, problems })}\n`)
    return EXIT.usage
  }
  const { config, file, warnings } = loaded
  const rules = describeConfig(config)
  if (flags.output === 'json') {
    io.stdout.write(`${JSON.stringify({ file, valid: true, warnings, rules })}\n`)
    return EXIT.ok
  }
  for (const warning of warnings) io.stderr.write(`${paint(io, 'stderr', 'yellow', 'warning:')} ${warning}\n`)
  io.stdout.write(`# ${file} is valid. The effective rules, without the secret:\n${stringify(rules)}`)
  return EXIT.ok
}

/** A file that is not there or no YAML is one problem, of the whole; `undefined` for what is no problem of a configuration. */
function problemsOf(thrown: unknown): readonly ConfigProblem[] | undefined {
  if (!(thrown instanceof XmqError) || exitCodeOf(thrown) !== EXIT.usage) return undefined
  const problems = configProblemsOf(thrown)
  return problems.length > 0 ? problems : [{ path: '', text: thrown.message }]
}
