/** Placeholder so that the seam is fixed first. */
import type { XmlElement } from './element.ts'
import type { XmqError } from './errors.ts'

/** What a stream's reader reports, in the order of the wire. */
export interface StreamReaderHandlers {
  /** The stream root was opened (`<stream:stream …>`): its attributes, `xmlns` and `xmlns:*` included as written. */
  onOpen(root: { readonly name: string; readonly ns: string; readonly attrs: ReadonlyMap<string, string> }): void
  /** A whole first-level element: a stanza, `<stream:features/>`, `<handshake/>`, … */
  onElement(root: XmlElement): void
  /**
   * A first-level element broke a limit and was skipped to its end: its start tag (no children) and why. The stream goes on.
   */
  onSkipped(head: XmlElement, error: XmqError): void
  /** `</stream:stream>`. */
  onClose(): void
}
