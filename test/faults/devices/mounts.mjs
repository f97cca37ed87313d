/**
 * File systems of a scene's own, to be filled up, made read-only or cut off: a small tmpfs, and ext4 in an image file.
 *
 * Mounting needs root. A guard unmounts what is still mounted when this process dies, however it dies.
 */
import { spawn, spawnSync } from 'node:child_process'
import { closeSync, copyFileSync, mkdirSync, openSync, readFileSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

const UNMOUNT = 'trap "" INT TERM HUP; cat >/dev/null; while umount -l "$1" 2>/dev/null; do :; done'

/** EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_DEFAULT. */
const SHUT_DOWN = 'open(F, "<", $ARGV[0]) or die $!; my $how = pack("L", 0); ioctl(F, 0x8004587d, $how) or die $!'

/** Runs a program of the system. @throws with what it said when it fails */
export function run(command, ...args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`)
  return stdout.trim()
}

function has(command) {
  return spawnSync(command, ['--version']).error === undefined
}

/** Why nothing can be mounted here; `undefined` when it can. */
export function mountObstacle(...programs) {
  if (process.platform !== 'linux') return 'needs Linux: file systems are mounted for it'
  if (process.getuid() !== 0) return 'needs root: file systems are mounted for it'
  const missing = ['mount', ...programs].find((program) => !has(program))
  if (missing !== undefined) return `needs ${missing}, which is not installed here`
  const probe = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { encoding: 'utf8' })
  return probe.status === 0 ? undefined : `needs the right to mount: ${probe.stderr?.trim() ?? probe.error?.message}`
}

/** Why there can be no ext4 in a file here; `undefined` when there can. */
export function loopObstacle() {
  const obstacle = mountObstacle('mkfs.ext4', 'e2fsck', 'losetup', 'findmnt', 'perl')
  if (obstacle !== undefined) return obstacle
  const free = spawnSync('losetup', ['-f'], { encoding: 'utf8' })
  return free.status === 0 ? undefined : `needs a free loop device: ${free.stderr.trim()}`
}

/** A folder that something is mounted on. */
class Mounted {
  path
  #guard

  constructor(path) {
    this.path = path
    mkdirSync(path, { recursive: true })
    this.#guard = spawn('/bin/sh', ['-c', UNMOUNT, 'guard', path], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    })
    this.#guard.unref()
    this.#guard.stdin.unref()
  }

  unmount() {
    run('umount', this.path)
  }

  remount(options) {
    run('mount', '-o', `remount,${options}`, this.path)
  }

  /** Takes all the space that is left, or leaves so many bytes for the next commits. */
  fill(spareBytes = 0) {
    const piece = Buffer.alloc(4096)
    const { bavail, bsize } = statfsSync(this.path)
    // The broker writes as well: for nothing to be left, this goes on until there is nothing.
    const pieces = spareBytes === 0 ? Number.POSITIVE_INFINITY : (bavail * bsize - spareBytes) / piece.length
    const file = openSync(join(this.path, 'ballast'), 'a')
    try {
      for (let count = 0; count < pieces; count++) writeSync(file, piece)
    } catch (error) {
      if (error.code !== 'ENOSPC') throw error
    } finally {
      closeSync(file)
    }
  }

  /** Gives the space back. */
  clear() {
    rmSync(join(this.path, 'ballast'), { force: true })
  }

  /** Unmounts it, if it is mounted, and lets the guard go. */
  close() {
    spawnSync('umount', ['-l', this.path])
    this.#guard.stdin.end()
  }
}

/** A file system in memory, with so many bytes. */
export class SmallDisk extends Mounted {
  constructor(path, bytes) {
    super(path)
    run('mount', '-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path)
  }
}

/**
 * ext4 in an image file. What is in the image was given to the device; what is only in the page cache was not: a copy of the image is
 * what a power cut leaves.
 */
export class ImageDisk extends Mounted {
  #image

  constructor(path, image, mebibytes) {
    super(path)
    this.#image = image
    run('truncate', '-s', `${mebibytes}M`, image)
    // Everything is laid out now: later there is no background writing but that of the journal.
    run('mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', image)
    this.mount()
  }

  mount() {
    // Without fsync the journal commits seldom: what nobody synced stays out of the image as long as possible.
    run('mount', '-o', 'loop,commit=300', this.#image, this.path)
  }

  get #device() {
    return run('findmnt', '-n', '-o', 'SOURCE', this.path)
  }

  /**
   * Every call on the file system fails from now on, as when its device is gone: ext4's own shutdown. What was synced is on the
   * device. (An error that ext4 finds in itself is no such fault: of two syncs in 25 it then says that they worked, and the data
   * is not there; measured on Linux 6.18 by a program that only writes and syncs.)
   */
  shutDown() {
    run('perl', '-e', SHUT_DOWN, this.path)
  }

  /** Unmounts it, as soon as nobody has a file of it open, checks it and mounts it again. */
  async repair() {
    for (let tries = 0; ; tries++) {
      const { status, stderr } = spawnSync('umount', [this.path], { encoding: 'utf8' })
      if (status === 0) break
      if (tries === 500) throw new Error(`Somebody holds the disk: ${stderr}`)
      await pause(20)
    }
    // 1: errors were mended.
    const { status, stdout } = spawnSync('e2fsck', ['-f', '-y', this.#image], { encoding: 'utf8' })
    if (status > 1) throw new Error(`e2fsck: ${stdout}`)
    this.mount()
  }

  /** Copies the image as it is at one moment: again, while anything was written meanwhile. */
  snapshot(copy) {
    const device = basename(this.#device)
    const written = () => readFileSync(`/sys/block/${device}/stat`, 'utf8').trim().split(/\s+/)[6]
    for (let before; before !== written(); ) {
      before = written()
      copyFileSync(this.#image, copy)
    }
  }

  /** The power is back: what the snapshot has is all that there is. Nobody uses the disk any more. */
  restore(copy) {
    run('umount', this.path)
    rmSync(this.#image)
    run('mv', copy, this.#image)
    this.mount()
  }
}
