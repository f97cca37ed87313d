#!/usr/bin/env node
// `npm create xmq-worker DIR` is `xmq-worker new DIR`.
import { main } from 'xmq-worker'

process.exitCode = await main(['new', ...process.argv.slice(2)], { calledAs: 'npm create xmq-worker' })
