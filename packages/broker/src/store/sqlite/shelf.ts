/**
 * Where the entries of a line lie in the file: those of one priority together, in the order of publishing. Claims take one priority after the
 * other: were they mixed, each of a hundred messages would lie in a page of its own, to be read, written when it is leased, and written
 * when it is acked.
 *
 * A shelf is the upper half of an entry's id, the seq the lower one:
 *
 * | shelf | what lies there |
 * |---|---|
 * | line | messages of the usual priority; of every priority those from before version 4, and those of lines that are too high |
 * | -(9 * line + n) | messages of another priority: n is 0 for 9, 1 for 8, ... 4 for 5, 5 for 3, ... 8 for 0 |
 *
 * So a file of an earlier version is one of this version as it is: where an entry lies says nothing, its columns say all.
 */

/** What producers ask for that ask for nothing. */
const USUAL_PRIORITY = 4
const OTHERS = 9
/** Lines beyond have one shelf: 2^19 are negative. */
const LINES_SHELVED = Math.floor((2 ** 19 - OTHERS) / OTHERS)

/** Where a new message goes. */
export function shelfOf(line: number, priority: number): number {
  if (priority === USUAL_PRIORITY || line > LINES_SHELVED) return line
  return -(OTHERS * line + (priority > USUAL_PRIORITY ? 9 - priority : 8 - priority))
}

/** Whose entries lie there. */
export const lineOf = (shelf: number): number => (shelf > 0 ? shelf : Math.floor(-shelf / OTHERS))

/** The shelves of a line but for its first, which has its number. */
export function otherShelves(line: number): number[] {
  return line > LINES_SHELVED ? [] : Array.from({ length: OTHERS }, (_, n) => -(OTHERS * line + n))
}
