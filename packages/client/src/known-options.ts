/** Options that nobody knows: refused, never ignored. A misspelt limit that silently does not hold is worse than an error. */
import { suggest, XmqError } from '@xmq/protocol'

/** The names of an options object: all of them, so that none is forgotten here. */
export type OptionNames<Options extends object> = Readonly<Record<keyof Options, true>>

/**
 * What a caller without types may give as options.
 *
 * Called for each publish that has options: nothing is made here while all is right.
 *
 * @param of whose options they are, for the message: `publish()`
 * @throws XmqError `invalid-config` on what is no object, and on a name that is none of `names`
 */
export function assertOptions<Options extends object>(options: Options, names: OptionNames<Options>, of: string): void {
  if (typeof options !== 'object' || options === null) throw noOptions(options, names, of)
  for (const name in options) {
    // Not what a library has added to the prototype of all objects.
    if (names[name] !== true && Object.hasOwn(options, name)) throw unknownOption(name, names, of)
  }
}

function noOptions(options: unknown, names: object, of: string): XmqError {
  const got = options === undefined || options === null ? String(options) : `a ${typeof options}`
  const text = `${of} takes an object of options, and got ${got}. Known: ${Object.keys(names).join(', ')}.`
  return new XmqError('invalid-config', text)
}

function unknownOption(name: string, names: object, of: string): XmqError {
  return new XmqError('invalid-config', `${name} is no option of ${of}${suggest(name, Object.keys(names))}`)
}
