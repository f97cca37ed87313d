/**
 * Runs a command for a suite: its output kept, its time bounded, its whole process group ended with it, so that nothing of a
 * suite that hangs or is interrupted stays behind.
 */
import { spawn } from 'node:child_process'
import { root } from './setup.mjs'

/** Longer than any suite takes; all of them have 12 minutes. */
const TIME_MAX_MS = 8 * 60_000
const OUTPUT_CHARACTERS_MAX = 1024 * 1024

const running = new Set()

/** Ends everything that {@link runCommand} has started. */
export function stopRunning() {
  for (const child of running) endGroup(child)
}

function endGroup(child) {
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch (error) {
    if (error.code !== 'ESRCH') throw error
  }
}

/**
 * @param {string} command
 * @param {readonly string[]} args
 * @param {Record<string, string>} [env] added to this process's own
 * @param {string} [cwd] the checkout's root, if not given
 * @returns {Promise<{ code: number, output: string }>} never rejects for what the command does
 */
export function runCommand(command, args, env = {}, cwd = root) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, npm_config_loglevel: 'error', npm_config_update_notifier: 'false', ...env },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    running.add(child)
    let output = ''
    const keep = (chunk) => {
      output = (output + chunk).slice(-OUTPUT_CHARACTERS_MAX)
    }
    child.stdout.setEncoding('utf8').on('data', keep)
    child.stderr.setEncoding('utf8').on('data', keep)
    const timer = setTimeout(() => {
      keep(`\nStopped after ${TIME_MAX_MS / 60_000} minutes: ${command} ${args.join(' ')}\n`)
      endGroup(child)
    }, TIME_MAX_MS)
    const finish = (code) => {
      clearTimeout(timer)
      running.delete(child)
      resolve({ code, output })
    }
    child.on('error', (error) => {
      keep(`${error.message}\n`)
      finish(1)
    })
    child.on('close', (code) => finish(code ?? 1))
  })
}
