/** Which codec a batch is written in. docs/protocol-reliable.md "Items". */
import type { XmlElement } from '../element.ts'
import { XmqError } from '../errors.ts'
import type { ItemCodec } from './item.ts'
import { PACKED_ITEMS } from './packed-items.ts'
import { XML_ITEMS } from './xml-items.ts'

const CODECS: readonly ItemCodec[] = [XML_ITEMS, PACKED_ITEMS]

/** The codec of an `encoding`; `undefined` for one that is not known here. */
export function itemCodecFor(encoding: string | undefined): ItemCodec | undefined {
  return CODECS.find((codec) => codec.encoding === encoding)
}

/**
 * The codec that a container is written in.
 * @throws XmqError `bad-request` on an encoding that is not known here
 */
export function itemCodecOf(container: XmlElement): ItemCodec {
  const encoding = container.attrs.get('encoding')
  const codec = itemCodecFor(encoding)
  if (codec !== undefined) return codec
  throw new XmqError(
    'bad-request',
    `Attribute 'encoding' of <${container.name}> is '${String(encoding).slice(0, 40)}', which is not known here; leave it out.`,
  )
}
