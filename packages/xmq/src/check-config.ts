import { describeConfig } from '@xmq/broker'
import { stringify } from 'yaml'
import { loadConfig, type ConfigFlags } from './config-file.ts'
import { EXIT, type ExitCode } from './exit.ts'
import { paint, type Io, type OutputFormat } from './io.ts'

/** `xmq check-config`: checks everything that can be checked without a server, and prints the effective rules. */
export function checkConfig(io: Io, flags: ConfigFlags & { readonly output: OutputFormat }): ExitCode {
  const { config, file, warnings } = loadConfig(io, flags)
  const rules = describeConfig(config)
  if (flags.output === 'json') {
    io.stdout.write(`${JSON.stringify({ file, valid: true, warnings, rules })}\n`)
    return EXIT.ok
  }
  for (const warning of warnings) io.stderr.write(`${paint(io, 'stderr', 'yellow', 'warning:')} ${warning}\n`)
  io.stdout.write(`# ${file} is valid. The effective rules, without the secret:\n${stringify(rules)}`)
  return EXIT.ok
}
