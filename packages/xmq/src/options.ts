import { Option } from 'commander'
import { OUTPUT_FORMATS } from './io.ts'

/** `--output`, wherever a program may read the result. */
export function outputOption(): Option {
  return new Option('-o, --output <format>', 'json: one object a line, for programs')
    .choices(OUTPUT_FORMATS)
    .default('text')
}
