/**
 * Core and session know no clock, no randomness and nothing asynchronous: while one of them runs, whatever would bring in such a
 * thing throws. Else a seed would not give the same run again.
 *
 *     purely(act): guarded --act returns, throws--> as before
 */
import { Violation } from './violation.ts'

let isGuarded = false

/** Runs what has to be pure. @throws Violation when it is not */
export function purely<Result>(act: () => Result): Result {
  const before = isGuarded
  isGuarded = true
  try {
    return act()
  } finally {
    isGuarded = before
  }
}

function refuse(what: string): void {
  if (!isGuarded) return
  // Vitest and Node may go on with whatever they need to tell of it.
  isGuarded = false
  throw new Violation(`${what} was used where everything has to come from the inputs`)
}

/** Puts a guard before a function of an object. */
function guard<Owner extends object>(owner: Owner, name: keyof Owner & string, title: string): void {
  const original = Reflect.get(owner, name) as (...args: unknown[]) => unknown
  const guarded = function guarded(this: unknown, ...args: unknown[]): unknown {
    refuse(title)
    return Reflect.apply(original, this, args)
  }
  Object.defineProperty(owner, name, { value: guarded, configurable: true, writable: true })
}

const timers = ['setTimeout', 'setInterval', 'setImmediate', 'queueMicrotask'] as const
for (const name of timers) guard(globalThis, name, name)
guard(Math, 'random', 'Math.random')
guard(performance, 'now', 'performance.now')
guard(crypto, 'randomUUID', 'crypto.randomUUID')
guard(crypto, 'getRandomValues', 'crypto.getRandomValues')
for (const name of ['then', 'catch', 'finally'] as const) guard(Promise.prototype, name, `a promise's ${name}`)

globalThis.Promise = new Proxy(Promise, {
  construct(target, args, self) {
    refuse('a promise')
    return Reflect.construct(target, args, self) as object
  },
  get(target, name) {
    if (typeof name === 'string' && name !== 'prototype') refuse(`Promise.${name}`)
    return Reflect.get(target, name, target) as unknown
  },
})

/** `new Date(0)` tells no time; `new Date()` does. */
globalThis.Date = new Proxy(Date, {
  construct(target, args, self) {
    if (args.length === 0) refuse('new Date()')
    return Reflect.construct(target, args, self === Date ? target : self) as object
  },
  apply(target) {
    refuse('Date()')
    return Reflect.apply(target, undefined, [])
  },
  get(target, name) {
    if (name === 'now') refuse('Date.now')
    return Reflect.get(target, name, target) as unknown
  },
})
