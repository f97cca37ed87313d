/* oxlint-disable typescript/unbound-method, no-extend-native -- watching the built-ins is the purpose, and they are put back */
/** Counts what string operations look at: work that does not depend on the machine. */

/** Characters that strings and regular expressions looked at, or copied, while `run` ran. */
export function countWork(run: () => void): number {
  const text = String.prototype
  const pattern = RegExp.prototype
  const original = {
    charCodeAt: text.charCodeAt,
    indexOf: text.indexOf,
    lastIndexOf: text.lastIndexOf,
    slice: text.slice,
    startsWith: text.startsWith,
    replace: text.replace,
    test: pattern.test,
    exec: pattern.exec,
    join: Array.prototype.join,
  }
  let work = 0
  text.charCodeAt = function charCodeAt(index) {
    work++
    return original.charCodeAt.call(this, index)
  }
  text.indexOf = function indexOf(search, from = 0) {
    const at = original.indexOf.call(this, search, from)
    work += (at === -1 ? this.length : at) - from + 1
    return at
  }
  text.lastIndexOf = function lastIndexOf(search, position) {
    const from = position ?? this.length
    const at = original.lastIndexOf.call(this, search, from)
    work += from - at + 1
    return at
  }
  text.slice = function slice(from, to) {
    const piece = original.slice.call(this, from, to)
    work += piece.length
    return piece
  }
  text.startsWith = function startsWith(search, at) {
    work += search.length
    return original.startsWith.call(this, search, at)
  }
  text.replace = function replace(this: string, ...args: Parameters<typeof original.replace>) {
    work += this.length
    return original.replace.apply(this, args)
  } as typeof text.replace
  pattern.test = function test(subject) {
    work += subject.length
    return original.test.call(this, subject)
  }
  pattern.exec = function exec(subject) {
    work += subject.length
    return original.exec.call(this, subject)
  }
  Array.prototype.join = function join(this: unknown[], separator) {
    const joined = original.join.call(this, separator)
    work += joined.length
    return joined
  }
  try {
    run()
  } finally {
    const { test, exec, join, ...strings } = original
    Object.assign(text, strings)
    Object.assign(pattern, { test, exec })
    Array.prototype.join = join
  }
  return work
}
