/** Counts while they are counted. */
import type { LineCounts } from './entry.ts'

export type Counts = { -readonly [Name in keyof LineCounts]: LineCounts[Name] }
