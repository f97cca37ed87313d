import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { createSqliteStore } from '@xmq/broker'
import { ImageDisk, loopObstacle, run as command } from '../devices/mounts.mjs'
import { inject, straceObstacle, SYNC } from '../devices/strace.mjs'
import { nowMs } from '../journal.mjs'
import { QUEUE_ANY } from '../messages.mjs'

const MEBIBYTES = 96
const PROOF_MEBIBYTES = 32
const PROOF_MESSAGES = 100
const SECTOR = 512
const HELD_UP_MS = 300
const FILES = ['xmq.db', 'xmq.db-wal']

let disk

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'power-cut',
  fault: 'power cut: only what was given to the device is left; each second time with the last writes torn',
  promise: 'everything confirmed is there; a torn commit is cut off',
  times: { whole: 40, short: { prosody: 0, ejabberd: 1 } },
  obstacle: loopObstacle,
  prepare(scene, plan) {
    disk = new ImageDisk(join(scene.folder, 'disk'), join(scene.folder, 'disk.img'), MEBIBYTES)
    scene.afterwards(() => disk.close())
    plan.storePath = join(disk.path, 'xmq.db')
    plan.config.store = `sqlite:${plan.storePath}`
  },
  async run(scene, times) {
    await proveThatItCanLose(scene)
    const canTrace = straceObstacle() === undefined
    let torn = 0
    for (let time = 0; time < times; time++) {
      await scene.moment()
      let startedAt = 0
      await scene.fault('power cut', 'broker', async () => {
        const isTorn = (scene.seed + time) % 2 === 1
        await (isTorn && canTrace
          ? killBeforeSync(scene, join(scene.folder, `strace.${time}.txt`))
          : scene.broker.kill())
        torn += cutPower(scene, isTorn)
        startedAt = nowMs()
        await scene.broker.start()
      })
      await scene.resume('power cut', nowMs(), startedAt)
    }
    scene.note(`torn sectors: ${torn}`)
  },
}

/**
 * The broker dies with commits that are written and not synced, so that there is something to tear. Each sync is held up: who confirms
 * without waiting for it has the time to do so.
 */
async function killBeforeSync(scene, log) {
  const injection = `${SYNC}:delay_enter=${HELD_UP_MS * 1000}`
  const tracer = await inject(scene.broker.pid, [injection], [`${scene.plan.storePath}-wal`], log)
  const { length } = scene.ledger.lines
  await scene.until('load before the cut', () => (scene.ledger.lines.length > length ? true : undefined))
  await pause(scene.random.unit() * HELD_UP_MS * 3)
  await scene.broker.kill()
  await tracer.exited
}

/** What was not on the device is gone. @returns how many sectors were torn */
function cutPower(scene, isTorn) {
  const copy = join(scene.folder, 'disk.cut')
  disk.snapshot(copy)
  const written = FILES.map((name) => readIfThere(join(disk.path, name)))
  disk.restore(copy)
  if (!isTorn) return 0
  return FILES.reduce((sum, name, at) => sum + tear(scene.random, join(disk.path, name), written[at]), 0)
}

function readIfThere(path) {
  return existsSync(path) ? readFileSync(path) : Buffer.alloc(0)
}

/**
 * Of what was written but not synced, each sector is as it was before, as it was to be, or neither: a disk may do any of it.
 *
 * @param {string} path of the file as the device has it
 * @param {Buffer} written as the program had written it
 */
function tear(random, path, written) {
  if (!existsSync(path)) return 0
  const onDevice = readFileSync(path)
  const file = openSync(path, 'r+')
  let torn = 0
  try {
    for (let at = 0; at < written.length; at += SECTOR) {
      const wanted = written.subarray(at, at + SECTOR)
      if (wanted.equals(onDevice.subarray(at, at + SECTOR))) continue
      const fate = random.int(3)
      if (fate === 0) continue
      // What was there before and was not written again stays: SQLite counts on that (powersafe overwrite), and disks keep it.
      const from = fate === 1 ? wanted.length : wanted.findIndex((byte, index) => byte !== onDevice[at + index])
      const bytes = Buffer.concat([wanted.subarray(0, from), Buffer.alloc(wanted.length - from, random.int(256))])
      writeSync(file, bytes, 0, bytes.length, at)
      torn++
    }
  } finally {
    closeSync(file)
  }
  command('sync', '-f', path)
  return torn
}

/** The device does lose what is not synced, and keeps what is. @throws when it does not: the cut would show nothing */
async function proveThatItCanLose(scene) {
  for (const synchronous of ['OFF', 'FULL']) {
    const left = await storedAfterCut(scene, synchronous)
    scene.note(`synchronous=${synchronous}: the cut left ${left} of ${PROOF_MESSAGES} stored messages`)
    if (synchronous === 'OFF' && left > 0)
      throw new Error('The device keeps what was not synced: the cut shows nothing.')
    if (synchronous === 'FULL' && left < PROOF_MESSAGES) throw new Error('The device loses what was synced.')
  }
}

async function storedAfterCut(scene, synchronous) {
  const place = join(scene.folder, `proof-${synchronous}`)
  const other = new ImageDisk(place, `${place}.img`, PROOF_MEBIBYTES)
  try {
    const path = join(place, 'xmq.db')
    const store = createSqliteStore({ path, synchronous })
    await store.open(Date.now())
    const ops = Array.from({ length: PROOF_MESSAGES }, (_, n) => publishOf(n))
    const results = await store.apply(ops, Date.now())
    if (results.some(({ status }) => status !== 'ok')) throw new Error('The proof could not be stored.')
    other.snapshot(`${place}.cut`)
    await store.close()
    other.restore(`${place}.cut`)
    const again = createSqliteStore({ path })
    await again.open(Date.now())
    const { messages } = again.stats()
    await again.close()
    return messages
  } finally {
    other.close()
  }
}

function publishOf(n) {
  return {
    type: 'publish',
    queue: QUEUE_ANY,
    topic: 'proof',
    id: `proof-${n}`,
    sender: 'proof@localhost',
    key: undefined,
    priority: 4,
    delayUntil: undefined,
    expiresAt: undefined,
    dedupeMs: 0,
    dedupeMax: 0,
    body: 'x'.repeat(2000),
    meta: '',
    targets: [{ subscription: '', maxLength: 1e6, maxBytes: 1e12, whenFull: 'refuse' }],
  }
}
