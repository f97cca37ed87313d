/**
 * Start tags: from text to a name, attributes and namespace declarations. Stateless but for the name table; the namespaces
 * in scope come as an argument.
 */
import { NS_CLIENT, NS_COMPONENT, NS_XML } from './namespaces.ts'
import { isSpace, type NameTable, type QName } from './xml-characters.ts'
import { printableName, type XmlWindow } from './xml-window.ts'

const NS_XMLNS = 'http://www.w3.org/2000/xmlns/'
/** What answers a stanza: kept even of a start tag that is over the limits. */
const ADDRESSING: ReadonlySet<string> = new Set(['type', 'id', 'from', 'to'])
/** A full JID is at most 3 x 1023 bytes and two separators. */
const ADDRESSING_LENGTH_MAX = 3071
/** Longer names are cut in what is reported of a broken start tag. */
const BROKEN_NAME_LENGTH_MAX = 64
const NO_ATTRS: ReadonlyMap<string, string> = new Map()

/** The namespaces declared by one element, on top of those around it. */
export interface NamespaceScope {
  readonly outer: NamespaceScope | undefined
  /** The default namespace in force, normalised. */
  readonly defaultNs: string
  /** The prefixes that this element declares. */
  readonly prefixes: ReadonlyMap<string, string> | undefined
}

/** The scope around everything: no namespace, no prefix. */
export const NO_SCOPE: NamespaceScope = { outer: undefined, defaultNs: '', prefixes: undefined }

/** More attributes than allowed, or a prefix that nothing declares. */
export type TagProblem = { readonly kind: 'attributes' } | { readonly kind: 'prefix'; readonly prefix: string }

/** A start tag as it was read. */
export interface StartTag {
  readonly name: QName
  /** Invariants 2 and 3 of element.ts hold; of a tag with a problem only what identifies a stanza. */
  readonly attrs: ReadonlyMap<string, string>
  readonly ns: string
  /** The value of `xmlns` as written, if it has one. */
  readonly xmlns: string | undefined
  readonly scope: NamespaceScope
  readonly selfClosing: boolean
  /** Why the stanza that it stands in cannot be read, though the stream can. */
  readonly problem: TagProblem | undefined
  /** Characters that writing it out would add for namespaces declared further out. */
  readonly added: number
  /** Index after the tag. */
  readonly end: number
}

/**
 * Reads the start tag at `at`.
 * @returns `undefined` when the window ends before the tag does
 * @throws XmqError `malformed-xml`
 */
export function readStartTag(
  window: XmlWindow,
  at: number,
  names: NameTable,
  outer: NamespaceScope,
  attributesMax: number,
): StartTag | undefined {
  const { text } = window
  const { length } = text
  let i = nameEnd(text, at + 1)
  if (i === length) return undefined
  const name = nameAt(window, names, at + 1, i)
  if (name.kind === 'declaration') window.fail(at, `<${name.text}> is no element's name`)
  let attrs: Map<string, string> | undefined
  let prefixes: Map<string, string> | undefined
  let prefixed: QName[] | undefined
  let xmlns: string | undefined
  let count = 0
  let selfClosing = false
  for (;;) {
    const gap = i
    i = skipSpace(text, i)
    if (i === length) return undefined
    const unit = text.charCodeAt(i)
    if (unit === 0x3e /* > */) break
    if (unit === 0x2f /* / */) {
      if (++i === length) return undefined
      if (text.charCodeAt(i) !== 0x3e) window.fail(i, `'/' inside <${printableName(name.text)}> is not followed by '>'`)
      selfClosing = true
      break
    }
    if (i === gap) window.fail(i, `white space is missing in <${printableName(name.text)}> before an attribute`)
    const from = i
    i = nameEnd(text, i)
    if (i === length) return undefined
    const attribute = nameAt(window, names, from, i)
    const open = valueStart(window, i, attribute)
    if (open === -1) return undefined
    const close = text.indexOf(text[open] as string, open + 1)
    const lt = window.nextTag(open)
    if (lt < (close === -1 ? length : close)) window.fail(lt, "'<' stands inside a tag; write '&lt;'")
    if (close === -1) return undefined
    i = close + 1
    count++
    const value = window.value(open + 1, close)
    if (attribute.kind === 'xmlns') {
      if (xmlns !== undefined) duplicate(window, from, attribute)
      if (value === NS_XML || value === NS_XMLNS) window.fail(from, `'${value}' cannot be a default namespace`)
      xmlns = value
      continue
    }
    attrs ??= new Map()
    if (count > attributesMax) {
      if (!ADDRESSING.has(attribute.text)) continue
      if (attrs.has(attribute.text)) duplicate(window, from, attribute)
      attrs.set(attribute.text, value)
      continue
    }
    const before = attrs.size
    attrs.set(attribute.text, value)
    if (attrs.size === before) duplicate(window, from, attribute)
    if (attribute.kind === 'declaration') {
      checkDeclaration(window, from, attribute, value)
      if (attribute.local !== 'xml') (prefixes ??= new Map()).set(attribute.local, value)
    } else if (attribute.kind === 'prefixed') (prefixed ??= []).push(attribute)
  }
  const written = {
    name,
    attrs,
    xmlns,
    prefixes,
    prefixed,
    selfClosing,
    tooManyAttributes: count > attributesMax,
    end: i + 1,
  }
  return resolveTag(window, at, written, outer)
}

/** A start tag before its prefixes mean anything. */
interface WrittenTag {
  readonly name: QName
  readonly attrs: Map<string, string> | undefined
  readonly xmlns: string | undefined
  readonly prefixes: ReadonlyMap<string, string> | undefined
  readonly prefixed: readonly QName[] | undefined
  readonly selfClosing: boolean
  readonly tooManyAttributes: boolean
  readonly end: number
}

function resolveTag(window: XmlWindow, at: number, tag: WrittenTag, outer: NamespaceScope): StartTag {
  const { name, attrs, xmlns, prefixes, prefixed, selfClosing, tooManyAttributes, end } = tag
  const scope: NamespaceScope =
    xmlns === undefined && prefixes === undefined
      ? outer
      : { outer, defaultNs: xmlns === undefined ? outer.defaultNs : contentNamespace(xmlns), prefixes }
  const found = name.prefix === '' ? scope.defaultNs : lookup(scope, name.prefix)
  const ns = contentNamespace(found ?? '')
  const problem: TagProblem | undefined = tooManyAttributes
    ? { kind: 'attributes' }
    : found === undefined
      ? { kind: 'prefix', prefix: name.prefix }
      : undeclared(prefixed, scope)
  if (problem !== undefined) {
    return { name, attrs: addressing(attrs), ns, xmlns, scope, selfClosing, problem, added: 0, end }
  }
  const added = prefixed === undefined ? 0 : bindAttributes(window, at, prefixed, attrs as Map<string, string>, scope)
  return { name, attrs: attrs ?? NO_ATTRS, ns, xmlns, scope, selfClosing, problem, added, end }
}

function undeclared(prefixed: readonly QName[] | undefined, scope: NamespaceScope): TagProblem | undefined {
  const attribute = prefixed?.find(({ prefix }) => lookup(scope, prefix) === undefined)
  return attribute && { kind: 'prefix', prefix: attribute.prefix }
}

/** What identifies a stanza, of a start tag that is too long to be read whole. Total: what cannot be read is left out. */
export function readBrokenHead(
  text: string,
  names: NameTable,
  outer: NamespaceScope,
): { readonly name: string; readonly ns: string; readonly attrs: ReadonlyMap<string, string> } {
  const name = names.lookup(text.slice(1, Math.min(nameEnd(text, 1), BROKEN_NAME_LENGTH_MAX)))
  const attrs = new Map<string, string>()
  let xmlns: string | undefined
  const pair = /[ \t\r\n]+([^\s=<>/"']+)[ \t\r\n]*=[ \t\r\n]*(?:"([^"<&]*)"|'([^'<&]*)')/y
  pair.lastIndex = nameEnd(text, 1)
  for (let found = pair.exec(text); found !== null; found = pair.exec(text)) {
    const key = found[1] as string
    const value = found[2] ?? found[3] ?? ''
    if (key === 'xmlns') xmlns = value
    else if (ADDRESSING.has(key)) attrs.set(key, value)
  }
  const defaultNs = xmlns === undefined ? outer.defaultNs : contentNamespace(xmlns)
  const ns = name === undefined || name.prefix === '' ? defaultNs : (lookup(outer, name.prefix) ?? '')
  return { name: name?.local ?? '', ns, attrs: addressing(attrs) }
}

function addressing(attrs: ReadonlyMap<string, string> | undefined): ReadonlyMap<string, string> {
  const kept = new Map<string, string>()
  for (const key of ADDRESSING) {
    const value = attrs?.get(key)
    if (value !== undefined && value.length <= ADDRESSING_LENGTH_MAX) kept.set(key, value)
  }
  return kept
}

/** On component streams the content namespace is another one; the rest of XMQ knows only `jabber:client`. */
function contentNamespace(ns: string): string {
  return ns === NS_COMPONENT ? NS_CLIENT : ns
}

function lookup(scope: NamespaceScope, prefix: string): string | undefined {
  if (prefix === 'xml') return NS_XML
  for (let at: NamespaceScope | undefined = scope; at !== undefined; at = at.outer) {
    const ns = at.prefixes?.get(prefix)
    if (ns !== undefined) return ns
  }
  return undefined
}

/** Gives each prefixed attribute its declaration on the same element, and refuses two that mean the same. */
function bindAttributes(
  window: XmlWindow,
  at: number,
  prefixed: readonly QName[],
  attrs: Map<string, string>,
  scope: NamespaceScope,
): number {
  let added = 0
  const seen = prefixed.length === 1 ? undefined : new Set<string>()
  for (const attribute of prefixed) {
    const ns = lookup(scope, attribute.prefix) as string
    const key = `xmlns:${attribute.prefix}`
    if (!attrs.has(key)) {
      attrs.set(key, ns)
      added += key.length + ns.length + 4
    }
    if (seen === undefined) continue
    const expanded = `${attribute.local} ${ns}`
    if (seen.has(expanded)) duplicate(window, at, attribute)
    seen.add(expanded)
  }
  return added
}

function checkDeclaration(window: XmlWindow, at: number, attribute: QName, ns: string): void {
  const { local } = attribute
  if (local === 'xmlns') window.fail(at, "prefix 'xmlns' cannot be declared")
  if ((local === 'xml') !== (ns === NS_XML)) window.fail(at, `prefix 'xml' and '${NS_XML}' belong together`)
  if (ns === NS_XMLNS) window.fail(at, `'${NS_XMLNS}' cannot be declared`)
  if (ns === '') window.fail(at, `prefix '${printableName(local)}' is declared as nothing`)
}

function duplicate(window: XmlWindow, at: number, attribute: QName): never {
  window.fail(at, `attribute '${printableName(attribute.text)}' stands twice in one tag`)
}

function nameAt(window: XmlWindow, names: NameTable, from: number, to: number): QName {
  const text = window.text.slice(from, to)
  const name = names.lookup(text)
  if (name === undefined) window.fail(from, text === '' ? 'a name is missing' : `'${printableName(text)}' is no name`)
  return name
}

/** Index of the opening quote after an attribute's name; -1 when the window ends first. */
function valueStart(window: XmlWindow, from: number, attribute: QName): number {
  const { text } = window
  let i = skipSpace(text, from)
  if (i === text.length) return -1
  if (text.charCodeAt(i) !== 0x3d /* = */) window.fail(i, `attribute '${printableName(attribute.text)}' has no value`)
  i = skipSpace(text, i + 1)
  if (i === text.length) return -1
  const unit = text.charCodeAt(i)
  if (unit !== 0x22 && unit !== 0x27) {
    window.fail(i, `the value of attribute '${printableName(attribute.text)}' is not quoted`)
  }
  return i
}

function skipSpace(text: string, from: number): number {
  let i = from
  while (i < text.length && isSpace(text.charCodeAt(i))) i++
  return i
}

/** Index after the name at `from`: at white space, `/`, `>`, `=` or the end. What else stands in it is checked later. */
function nameEnd(text: string, from: number): number {
  let i = from
  for (; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit <= 0x3e && (unit === 0x20 || unit === 0x3e || unit === 0x3d || unit === 0x2f || isSpace(unit))) break
  }
  return i
}
