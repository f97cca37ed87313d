/** Where a tag ends that a window does not finish: sought in new text only, without keeping any. */
import type { XmlWindow } from './xml-window.ts'

/** Start tags may hold `>` in quotes, end tags hold no quotes. */
export type TagKind = 'start' | 'end'

/** Seeks the end of one tag after the other, across windows. */
export class TagEndSeeker {
  /** The tag whose end is sought, or `undefined`. */
  kind: TagKind | undefined
  #quote = 0
  #slash = false

  /** Whether the tag that was found was `<like-this/>`. */
  get selfClosing(): boolean {
    return this.#slash
  }

  /** Begins with a tag of which no more than `<` was seen. */
  begin(kind: TagKind): void {
    this.kind = kind
    this.#quote = 0
    this.#slash = false
  }

  /**
   * Index of the `>` that ends the tag, -1 when it is not in this window. Goes on where the window before ended.
   * @throws XmqError `malformed-xml` on a `<` in a start tag
   */
  seek(window: XmlWindow, from: number): number {
    const { text } = window
    if (this.kind === 'end') return text.indexOf('>', from)
    let quote = this.#quote
    let slash = this.#slash
    let i = from
    for (; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      if (unit === 0x3c /* < */) window.fail(i, "'<' stands inside a tag; write '&lt;'")
      if (quote !== 0) {
        if (unit === quote) quote = 0
        continue
      }
      if (unit === 0x3e /* > */) break
      slash = unit === 0x2f
      if (unit === 0x22 || unit === 0x27) quote = unit
    }
    this.#quote = quote
    this.#slash = slash
    return i < text.length ? i : -1
  }
}
