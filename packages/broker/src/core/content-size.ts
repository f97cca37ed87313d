/** Whether a stanza's content is within a byte limit. docs/protocol.md "Sizes". */
import { wireLength, type XmlElement, type XmlNode } from '@xmq/protocol'

/**
 * Whether the children and the id of a stanza come to more than `bytesMax`, counted as `wireLength` counts: what a
 * quote-filled text becomes on the way is the sender's to pay, not the component stream's.
 *
 * An upper bound that looks at lengths alone settles it for nearly every stanza; only above it characters are counted.
 */
export function exceedsContent(stanza: XmlElement, bytesMax: number): boolean {
  const id = stanza.attrs.get('id') ?? ''
  let bound = upperBound(id)
  for (const child of stanza.children) bound += upperBound(child)
  if (bound <= bytesMax) return false
  let bytes = wireLength(id)
  for (const child of stanza.children) {
    bytes += wireLength(child)
    if (bytes > bytesMax) return true
  }
  return bytes > bytesMax
}

/** Every UTF-16 unit is at most six bytes on the wire: three of UTF-8, or `&quot;`. */
function upperBound(node: XmlNode): number {
  if (typeof node === 'string') return node.length * 6
  let bound = node.name.length * 6 + 5 + 9 + node.ns.length * 6
  for (const [key, value] of node.attrs) bound += key.length * 3 + 4 + value.length * 6
  for (const child of node.children) bound += upperBound(child)
  return bound
}
