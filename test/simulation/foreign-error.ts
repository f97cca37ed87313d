/** Errors as somebody writes them who knows nothing of us: without `<failure/>`. */
import { childElements, type XmlElement } from '@xmq/protocol'

/** @param error as we write it */
export function withoutFailure(error: XmlElement): XmlElement {
  const { name, ns, attrs } = error
  return { name, ns, attrs, children: childElements(error).filter((child) => child.name !== 'failure') }
}
