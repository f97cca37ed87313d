import { Option } from 'commander'
import { OUTPUT_FORMATS } from './io.ts'

/** `--output`, wherever a program may read the result. */
export function outputOption(): Option {
  return new Option('-o, --output <format>', 'json: one object a line, for programs')
    .choices(OUTPUT_FORMATS)
    .default('text')
}

/** For an option that may be repeated: what it was given so far, and one more. */
export function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value]
}
