// Loaded into a broker before its own code (`--import`): SIGUSR2 ends the thread of its store as a crash of it would, and says when.
import { createRequire, syncBuiltinESMExports } from 'node:module'

const builtin = createRequire(import.meta.url)('node:worker_threads')
let last
let count = 0
builtin.Worker = class extends builtin.Worker {
  constructor(...args) {
    super(...args)
    last = this
  }
}
syncBuiltinESMExports()
process.on('SIGUSR2', () => {
  void last?.terminate().then(() => console.log(`thread ended, number ${++count}`))
})
