#!/usr/bin/env node
import { existsSync } from 'node:fs'

const main = new URL('../dist/main.js', import.meta.url)
if (existsSync(main)) {
  const { main: run } = await import(main.href)
  process.exitCode = await run(process.argv.slice(2))
} else {
  console.error('xmq-worker is not built yet: run `npm run build` (or `npm start`) at the root of the checkout.')
  process.exitCode = 1
}
