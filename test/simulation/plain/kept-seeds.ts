/** Seeds that once found a fault, each with what it found. They run before all others, for ever. */
export const KEPT_SEEDS: readonly number[] = []
