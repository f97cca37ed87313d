/** Stanzas, inputs and effects as one line each, for the trail that a violation shows. */
import type { XmlElement } from '@xmq/protocol'

const LENGTH_MAX = 400

/** An input or an effect of the core or of a session. */
export function describe(what: { readonly type: string; readonly stanza?: XmlElement | undefined }): string {
  const { stanza, ...rest } = what
  if (stanza !== undefined) return short(stanza)
  return JSON.stringify(rest, (_, value: unknown) => (value instanceof Error ? value.message : value)).slice(
    0,
    LENGTH_MAX,
  )
}

/** A stanza without its namespaces. */
function short(root: XmlElement): string {
  const attrs = (one: XmlElement): string => [...one.attrs].map(([name, value]) => `${name}=${value}`).join(' ')
  const inner = (one: XmlElement): string =>
    one.children
      .map((child) => (typeof child === 'string' ? child : `[${child.name} ${attrs(child)}${inner(child)}]`))
      .join('')
  return `<${root.name} ${attrs(root)}> ${inner(root)}`
}
