/**
 * Preloaded (`node --import`) into the parts that a script starts: such a part ends when the script does, also when that
 * was killed and could not say goodbye. SIGTERM, so that workers still finish what they do.
 */
process.on('disconnect', () => process.kill(process.pid, 'SIGTERM'))
// The listener alone would keep a process alive that has nothing left to do.
process.channel?.unref()
