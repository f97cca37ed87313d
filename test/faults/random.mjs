/** A seeded source of randomness (mulberry32): a run's moments come from its seed alone. */

/** @param {number} seed */
export function createRandom(seed) {
  let state = seed >>> 0
  const unit = () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
  return {
    /** In [0, 1). */
    unit,
    /** A whole number in [0, below). */
    int: (below) => Math.floor(unit() * below),
    chance: (probability) => unit() < probability,
    pick: (from) => from[Math.floor(unit() * from.length)],
  }
}

/** A seed for a part of a run, from the run's seed and the part's name (FNV-1a). */
export function seedOf(seed, name) {
  let hash = (0x811c9dc5 ^ seed) >>> 0
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193) >>> 0
  return hash
}
