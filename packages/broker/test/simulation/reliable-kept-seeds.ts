/** Seeds of the reliable simulation that once found a fault, each with what it found. They run before all others, for ever. */
export const RELIABLE_KEPT_SEEDS: readonly number[] = [
  // A nack that was looked up was done after the extend that came behind it, and its lease stayed for ever.
  1725,
]

/** Seeds that show a fault which is not mended yet; they have to fail, so that mending moves them to the list above. */
export const RELIABLE_OPEN_SEEDS: readonly number[] = [
  // At the end the core still has a lease that the store does not have: it takes credit until its session ends.
  1980,
]
