// Loaded into a broker before its own code (`--import`): SIGUSR2 ends the thread of its store as a crash of it would.
import { createRequire, syncBuiltinESMExports } from 'node:module'

const builtin = createRequire(import.meta.url)('node:worker_threads')
let last
builtin.Worker = class extends builtin.Worker {
  constructor(...args) {
    super(...args)
    last = this
  }
}
syncBuiltinESMExports()
process.on('SIGUSR2', () => void last?.terminate())
