/** Cuts what a server sends into IQs, by text alone. */
const END = '</iq>'

/** How often a text has another one in it. */
export function countOf(text, part) {
  let count = 0
  for (let at = text.indexOf(part); at !== -1; at = text.indexOf(part, at + part.length)) count++
  return count
}

/** Calls `take(head, text)` for each IQ with children: its start tag, and all of it. */
export class Answers {
  #take
  #carry = ''

  constructor(take) {
    this.#take = take
  }

  read(chunk) {
    const text = this.#carry + chunk
    let start = 0
    for (
      let end = text.indexOf(END, Math.max(0, this.#carry.length - END.length));
      end !== -1;
      end = text.indexOf(END, start)
    ) {
      const piece = text.slice(start, end)
      start = end + END.length
      // Stanzas without an end tag of their own may stand before it.
      const from = piece.lastIndexOf('<iq ')
      this.#take(piece.slice(from, piece.indexOf('>', from)), from === 0 ? piece : piece.slice(from))
    }
    this.#carry = text.slice(start)
  }
}
