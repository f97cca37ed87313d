/** The streamed reader: docs/protocol.md "Streams" and "Sizes", RFC 6120 11. */
import { type ReaderLimits, XmlStreamReader, XmqError, parseElement, writeElement } from '@xmq/protocol'
import { describe, expect, test } from 'vitest'
import { countWork } from './work.ts'

const ROOT =
  "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='x'>"

function record(limits?: Partial<ReaderLimits>) {
  const events: string[] = []
  const reader = new XmlStreamReader(
    {
      onOpen: (root) => events.push(`open ${root.name} ${root.ns} ${[...root.attrs.keys()].join()}`),
      onElement: (element) => events.push(writeElement(element)),
      onSkipped: (head, error) => events.push(`skipped ${writeElement(head)} ${error.code}: ${error.message}`),
      onClose: () => events.push('close'),
    },
    limits,
  )
  return { reader, events }
}

function read(text: string, chunk = Number.MAX_SAFE_INTEGER, limits?: Partial<ReaderLimits>): string[] {
  const { reader, events } = record(limits)
  try {
    for (let at = 0; at < text.length; at += chunk) reader.write(text.slice(at, at + chunk))
  } catch (error) {
    events.push(`${(error as XmqError).code}: ${(error as XmqError).message}`)
  }
  return events
}

/** Reads the text cut in several ways, which must not matter. */
function readCut(text: string, limits?: Partial<ReaderLimits>): string[] {
  const whole = read(text, undefined, limits)
  for (const chunk of [1, 2, 3, 5, 64]) expect(read(text, chunk, limits), `chunks of ${chunk}`).toEqual(whole)
  return whole
}

describe('a stream', () => {
  test('is reported element by element, wherever it is cut', () => {
    const text = `${ROOT}<stream:features/> \n\t<message to='a'><body>a&amp;b &#x1F600;😀</body></message><r/></stream:stream> \n`
    expect(readCut(text)).toEqual([
      'open stream http://etherx.jabber.org/streams xmlns:stream,id,xmlns',
      "<features xmlns='http://etherx.jabber.org/streams'/>",
      "<message to='a'><body>a&amp;b 😀😀</body></message>",
      '<r/>',
      'close',
    ])
  })

  test('of a component is normalised to jabber:client in elements, not in the root', () => {
    const { reader } = record()
    const namespaces: string[] = []
    const own = new XmlStreamReader({
      onOpen: (root) => namespaces.push(root.attrs.get('xmlns') ?? ''),
      onElement: (element) => namespaces.push(element.ns),
      onSkipped: () => {},
      onClose: () => {},
    })
    own.write("<s:stream xmlns='jabber:component:accept' xmlns:s='http://etherx.jabber.org/streams'>")
    own.write("<handshake/><c:iq xmlns:c='jabber:component:accept'/><iq xmlns='jabber:component:accept'/>")
    expect(namespaces).toEqual(['jabber:component:accept', 'jabber:client', 'jabber:client', 'jabber:client'])
    reader.reset()
  })

  test('takes white space between stanzas and nothing else', () => {
    expect(readCut(`${ROOT} \r\n\t <a/>\n`)).toHaveLength(2)
    expect(readCut(`${ROOT}<a/>x`).at(-1)).toBe(
      'malformed-xml: Malformed XML at character 117: text stands between stanzas.',
    )
    expect(readCut(`${ROOT}<a/>&amp;`).at(-1)).toContain('text stands between stanzas')
    expect(readCut('HTTP/1.1 400 Bad Request').at(-1)).toContain('is this the port of an XMPP server')
    expect(readCut(`${ROOT}</stream:stream><a/>`).at(-1)).toContain('after the end of the stream')
    expect(readCut(`${ROOT}</stream:stream>x`).at(-1)).toContain('after the end of the stream')
  })

  test('starts afresh after a reset, also within one text', () => {
    const events: string[] = []
    const reader: XmlStreamReader = new XmlStreamReader({
      onOpen: (root) => events.push(`open ${root.attrs.get('id')}`),
      onElement(element) {
        events.push(element.name)
        if (element.name === 'auth') reader.reset()
      },
      onSkipped: () => {},
      onClose: () => {},
    })
    reader.write(`${ROOT}<auth/>${ROOT.replace("'x'", "'y'")}<iq/>`)
    reader.reset()
    reader.write(`${ROOT}<auth/>`)
    expect(events).toEqual(['open x', 'auth', 'open y', 'iq', 'open x', 'auth'])
  })

  test('is over after malformed XML: every further write throws the same', () => {
    const { reader, events } = record()
    reader.write(ROOT)
    expect(() => reader.write('<a/><b></a>')).toThrow('</a> ends <b>')
    expect(() => reader.write('<c/>')).toThrow('</a> ends <b>')
    expect(events.slice(1)).toEqual(['<a/>'])
  })

  test('is over when a handler throws, and the exception reaches the writer', () => {
    const reader = new XmlStreamReader({
      onOpen: () => {},
      onElement() {
        throw new RangeError('mine')
      },
      onSkipped: () => {},
      onClose: () => {},
    })
    expect(() => reader.write(`${ROOT}<a/>`)).toThrow(RangeError)
    expect(() => reader.write('<b/>')).toThrow('mine')
  })

  test('cannot be written to from a handler', () => {
    const reader: XmlStreamReader = new XmlStreamReader({
      onOpen: () => {},
      onElement: () => reader.write('<b/>'),
      onSkipped: () => {},
      onClose: () => {},
    })
    expect(() => reader.write(`${ROOT}<a/>`)).toThrow('from one of its handlers')
  })

  test('of 190 KiB of mixed scripts and emoji comes out whole, cut at every character', () => {
    const body = 'Привет 你好 😀 مرحبا é\u{10ffff}𝒳 '.repeat(4200)
    expect(new TextEncoder().encode(body).length).toBeGreaterThan(190 * 1024)
    const { reader, events } = record()
    reader.write(ROOT)
    const text = `<message><body>${body}</body></message>`
    for (let at = 0; at < text.length; at++) reader.write(text[at] as string)
    expect(events[1]).toBe(text)
  })
})

describe('namespaces', () => {
  test.each([
    [
      "<a xmlns='u'><b/><c xmlns=''/><d xmlns='v'><e/></d></a>",
      "<a xmlns='u'><b/><c xmlns=''/><d xmlns='v'><e/></d></a>",
    ],
    ["<p:a xmlns:p='u'><b/><p:b/></p:a>", "<a xmlns='u' xmlns:p='u'><b xmlns='jabber:client'/><b/></a>"],
    ["<a xmlns:p='u'><b p:x='1'/></a>", "<a xmlns:p='u'><b p:x='1' xmlns:p='u'/></a>"],
    ["<a p:x='1' xmlns:p='u'/>", "<a p:x='1' xmlns:p='u'/>"],
    ["<a xml:lang='de'><xml:b/></a>", "<a xml:lang='de'><xml:b/></a>"],
    ["<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>", "<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>"],
    [
      "<a xmlns:p='u'><b xmlns:p='v' p:x='1'/><c p:x='2'/></a>",
      "<a xmlns:p='u'><b xmlns:p='v' p:x='1'/><c p:x='2' xmlns:p='u'/></a>",
    ],
    ["<__proto__ constructor='1' __proto__='2'/>", "<__proto__ constructor='1' __proto__='2'/>"],
  ])('%s', (text, canonical) => {
    expect(writeElement(parseElement(text))).toBe(canonical)
  })

  test('moved with their subtree: attributes carry their declaration', () => {
    const [child] = parseElement("<a xmlns:p='u'><b p:x='1'/></a>").children
    expect(writeElement(child as never)).toBe("<b p:x='1' xmlns:p='u'/>")
  })
})

describe('values', () => {
  test.each([
    ["<a b='1&#9;2&#10;3&#13;4'/>", '1\t2\n3\r4'],
    ["<a b='1\t2\n3\r\n4\r5'/>", '1 2 3 4 5'],
    ['<a b="\'&quot;&apos;&lt;&gt;&amp;"/>', "'\"'<>&"],
    ["<a b = '1' />", '1'],
    ["<a\n\tb\n=\n'1'\n/>", '1'],
    ["<a b='&#x41;&#65;&#x0000041;'/>", 'AAA'],
    ["<a b='>'/>", '>'],
  ])('of attributes: %j', (text, value) => {
    for (const chunk of [1, 2, 1000]) {
      const { reader, events } = record()
      reader.write(ROOT)
      for (let at = 0; at < text.length; at += chunk) reader.write(text.slice(at, at + chunk))
      expect(parseElement(events[1] as string).attrs.get('b')).toBe(value)
    }
  })

  test.each([
    ['<a>1\r\n2\r3\n4</a>', '1\n2\n3\n4'],
    ['<a>&#13;&amp;amp;&#38;lt;</a>', '\r&amp;&lt;'],
    ['<a>]]&gt; ]] ]</a>', ']]> ]] ]'],
    ['<a>x<![CDATA[<y>&amp;]] ]>\r\n]]]>z</a>', 'x<y>&amp;]] ]>\n]z'],
    ['<a><![CDATA[]]></a>', undefined],
    ['<a>\u00a0\ufffd</a>', '\u00a0\ufffd'],
  ])('of text: %j', (text, value) => {
    expect(parseElement(text).children).toEqual(value === undefined ? [] : [value])
    readCut(ROOT + text)
  })
})

describe('malformed XML is refused, naming the cause and the position', () => {
  test.each([
    ['<!DOCTYPE a [<!ENTITY b "c">]>', 0, 'document types'],
    ['<a><!-- x --></a>', 3, 'comments'],
    ['<a><?php x ?></a>', 3, 'processing instructions'],
    ["<?xml version='1.0'?><a/>", 0, 'processing instructions'],
    ['<a><!ELEMENT b></a>', 3, 'begins neither'],
    ['<a>&nbsp;</a>', 3, "entity '&nbsp;' is unknown"],
    ["<a b='&b;'/>", 6, "entity '&b;' is unknown"],
    ['<a>&amp</a>', 3, 'begins no reference'],
    ['<a>& b</a>', 3, 'begins no reference'],
    ['<a>&#;</a>', 3, 'unknown'],
    ['<a>&#0;</a>', 3, 'does not allow'],
    ['<a>&#x1f;</a>', 3, 'does not allow'],
    ['<a>&#xD800;</a>', 3, 'does not allow'],
    ['<a>&#xFFFE;</a>', 3, 'does not allow'],
    ['<a>&#x110000;</a>', 3, 'does not allow'],
    ['<a>&#99999999999999999999;</a>', 3, 'does not allow'],
    ['<a>b\u0000</a>', 4, 'U+0000'],
    ['<a>\uffff</a>', 3, 'U+FFFF'],
    ['<a>\ud83d</a>', 3, 'U+D83D'],
    ['<a>\ude00</a>', 3, 'U+DE00'],
    ['<a></b>', 3, '</b> ends <a>'],
    ['<a></a b>', 3, 'ends <a>'],
    ['<a></ a>', 3, 'ends <a>'],
    ["<a b='1' b='2'/>", 9, 'twice'],
    ["<a p:b='1' q:b='2' xmlns:p='u' xmlns:q='u'/>", 0, 'twice'],
    ["<a xmlns='u' xmlns='v'/>", 13, 'twice'],
    ["<a b='<'/>", 6, "'<' stands inside a tag"],
    ['<a b=1/>', 5, 'not quoted'],
    ['<a b/>', 4, 'no value'],
    ["<a b='1'c='2'/>", 8, 'white space is missing'],
    ['<a / >', 4, 'not followed'],
    ['<1a/>', 1, 'is no name'],
    ['< a/>', 1, 'a name is missing'],
    ['<a:b:c/>', 1, 'is no name'],
    ['<:a/>', 1, 'is no name'],
    ["<a xmlns:p=''/>", 3, 'declared as nothing'],
    ["<a xmlns:xmlns='u'/>", 3, "'xmlns' cannot be declared"],
    ["<a xmlns:xml='u'/>", 3, 'belong together'],
    ["<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>", 3, 'belong together'],
    ["<a xmlns='http://www.w3.org/2000/xmlns/'/>", 3, 'cannot be a default namespace'],
    ['<xmlns:a/>', 0, 'no element'],
    ['<a>]]></a>', 3, "']]>' stands in text"],
    ['<![CDATA[x]]>', 0, 'outside a stanza'],
    ['<a b="1"', undefined, undefined],
  ])('%j', (text, at, cause) => {
    const last = readCut(`${ROOT}${text}`).at(-1)
    if (cause === undefined) return expect(last).toContain('open')
    expect(last).toContain('malformed-xml: ')
    expect(last).toContain(cause)
    expect(last).toContain(`at character ${ROOT.length + at}:`)
  })

  test('also in the XML declaration', () => {
    expect(readCut(`<?xml version="1.0" encoding='UTF-8' standalone="yes" ?>${ROOT.slice(21)}`)).toHaveLength(1)
    expect(readCut("<?xml version='1.0' encoding='latin1'?>")[0]).toContain("'latin1' is not allowed")
    expect(readCut("<?xml encoding='utf-8'?>")[0]).toContain('declaration is wrong')
    expect(readCut("<?xml version='1.0'?><?xml version='1.0'?>")[0]).toContain('processing instructions')
    expect(readCut(`<?xml ${' '.repeat(500)}`)[0]).toContain('does not end')
    expect(readCut('<?xml-stylesheet?>')[0]).toContain('processing instructions')
  })

  test('with nothing of the payload in the text', () => {
    const text = read(`${ROOT}<a><body>secret</body></b>`).at(-1)
    expect(text).not.toContain('secret')
  })
})

describe('one element', () => {
  test.each([
    ['', 'no element'],
    ['  ', 'no element'],
    ['<a', 'does not end'],
    ['<a>', 'does not end'],
    ['<a/><b/>', 'more than one element'],
    ['<a/><', 'does not end'],
    ['<a/>\ud800', 'does not end'],
    ['<a/></a>', '</a> ends nothing'],
    ['<a/></>', '</> ends nothing'],
    ['x<a/>', 'text stands'],
  ])('%j is refused', (text, cause) => {
    expect(() => parseElement(text)).toThrow(cause)
  })

  test('stands in jabber:client, or where it is told', () => {
    expect(parseElement(' <a/>\n').ns).toBe('jabber:client')
    expect(parseElement('<a/>', 'u').ns).toBe('u')
  })

  test('over a limit is too-large', () => {
    expect(() => parseElement('<a>'.repeat(33) + '</a>'.repeat(33))).toThrow('nested more than 32 deep')
    expect(() => parseElement('<a>xx</a>', undefined, { stanzaBytesMax: 8 })).toThrow(
      expect.objectContaining({ code: 'too-large' }),
    )
  })
})

describe('a stanza over a limit is skipped to its end, and the stream goes on', () => {
  const nested = (depth: number) => `<m id='1'>${'<x>'.repeat(depth - 1)}${'</x>'.repeat(depth - 1)}</m>`
  const attributes = (count: number) => Array.from({ length: count }, (_, n) => ` a${n}='v'`).join('')

  test('depth', () => {
    expect(readCut(`${ROOT}${nested(32)}<b/>`)).toHaveLength(3)
    expect(readCut(`${ROOT}${nested(33)}<b/>`).slice(1)).toEqual([
      "skipped <m id='1'/> too-large: <m> was skipped: it has elements nested more than 32 deep. Send less in one stanza.",
      '<b/>',
    ])
    expect(readCut(`${ROOT}${nested(5000)}<b/>`)).toHaveLength(3)
  })

  test('attributes, namespace declarations counted', () => {
    expect(readCut(`${ROOT}<m><a${attributes(64)}/></m><b/>`)).toHaveLength(3)
    const skipped = 'an element with more than 64 attributes'
    expect(readCut(`${ROOT}<m id='1'><a${attributes(65)}/></m><b/>`)[1]).toContain(
      `skipped <m id='1'/> too-large: <m> was skipped: it has ${skipped}`,
    )
    expect(readCut(`${ROOT}<m id='1'><a${attributes(65)}>x</a></m><b/>`)[2]).toBe('<b/>')
    expect(readCut(`${ROOT}<a xmlns='u'${attributes(64)}/><b/>`)[1]).toContain("skipped <a xmlns='u'/>")
  })

  test('attributes of the stanza itself: what identifies it is kept, wherever it stands', () => {
    const text = `<iq to='b' xml:lang='de'${attributes(65)} from='a' id='7' type='get'><x/></iq>`
    expect(readCut(`${ROOT}${text}<b/>`).slice(1)).toEqual([
      expect.stringContaining("skipped <iq type='get' id='7' from='a' to='b'/> too-large"),
      '<b/>',
    ])
  })

  const limits = { stanzaBytesMax: 120 }
  test.each([
    ['text', `<m id='1'><x>${'a'.repeat(200)}</x></m>`, "<m id='1'/>"],
    ['text of many bytes a character', `<m id='1'><x>${'你'.repeat(50)}</x></m>`, "<m id='1'/>"],
    ['a CDATA section', `<m id='1'><x><![CDATA[${'<a>]]'.repeat(40)}]]></x></m>`, "<m id='1'/>"],
    ['an attribute', `<m id='1'><x a='${'/>'.repeat(100)}'/></m>`, "<m id='1'/>"],
    ['an attribute of its own', `<m id='1' a="${'/>'.repeat(100)}" to='x'>y</m>`, "<m id='1'/>"],
    ['an attribute of its own, without content', `<m id='1' a="${'/>'.repeat(100)}" to='x'/>`, '<m'],
    ['many elements', `<m id='1'>${'<x/>'.repeat(50)}</m>`, "<m id='1'/>"],
    [
      'white space in tags',
      `<m id='1'><x${' '.repeat(100)}></x${' '.repeat(100)}></m${' '.repeat(100)}>`,
      "<m id='1'/>",
    ],
    ['a long name', `<${'m'.repeat(140)}/>`, '<m'],
    [
      'an inherited namespace that many repeat',
      `<m id='1' xmlns:p='urn:${'n'.repeat(60)}'><p:x/><p:y/></m>`,
      "<m id='1'",
    ],
    [
      'an inherited declaration that many repeat',
      `<m id='1' xmlns:p='urn:${'n'.repeat(40)}'><x p:a=''/><y p:a=''/></m>`,
      "<m id='1'",
    ],
  ])('bytes in %s', (_where, text, head) => {
    const [, skipped, ...rest] = readCut(`${ROOT}${text}<b>&amp;</b>`, limits)
    expect(skipped).toContain(`skipped ${head}`)
    expect(skipped).toContain('more than 120 bytes')
    expect(rest).toEqual(['<b>&amp;</b>'])
  })

  test('bytes are counted exactly, whatever the characters and the cuts', () => {
    for (const filler of ['a', 'é', '你', '😀', '&amp;']) {
      const bytes = new TextEncoder().encode(filler).length
      const text = `<mm>${filler.repeat(100)}</mm>`
      const stanzaBytesMax = 9 + 100 * bytes
      expect(readCut(ROOT + text, { stanzaBytesMax })[1]).toBe(text)
      expect(readCut(ROOT + text, { stanzaBytesMax: stanzaBytesMax - 1 })[1]).toContain('skipped')
    }
  })

  test('the next stanza has the whole limit again', () => {
    const stanza = `<m>${'a'.repeat(80)}</m>`
    expect(readCut(`${ROOT}${stanza.repeat(20)}`, limits)).toEqual([
      expect.any(String),
      ...Array.from({ length: 20 }, () => stanza),
    ])
  })

  test('what is skipped is still refused when XMPP forbids it', () => {
    expect(readCut(`${ROOT}<m>${'a'.repeat(200)}<!-- x --></m>`, limits).at(-1)).toContain('comments')
    expect(readCut(`${ROOT}<m>${'a'.repeat(200)}<x a='<'/></m>`, limits).at(-1)).toContain("'<' stands inside a tag")
    expect(readCut(`${ROOT}<m>${'a'.repeat(200)}\u0001</m>`, limits).at(-1)).toContain('U+0001')
  })

  // What ejabberd sends on when a client declares a prefix on its stream's root and uses it in a stanza.
  test.each([
    ["<m id='1'><p:a/></m>", "<m id='1'/>"],
    ["<m id='1'><p:a>x</p:a></m>", "<m id='1'/>"],
    ["<m id='1'><a p:b='1'/></m>", "<m id='1'/>"],
    ["<m id='1' p:b='1' to='x'>y</m>", "<m id='1' to='x'/>"],
  ])('a prefix that nothing declares: %s', (text, head) => {
    expect(readCut(`${ROOT}${text}<b/>`).slice(1)).toEqual([
      `skipped ${head} malformed-xml: <m> was skipped: prefix 'p' is not declared.`,
      '<b/>',
    ])
    expect(() => parseElement(text)).toThrow(expect.objectContaining({ code: 'malformed-xml' }))
    expect(readCut('<p:s>')).toEqual(["malformed-xml: Malformed XML at character 0: prefix 'p' is not declared."])
  })

  test('the root of the stream may not be over the limits', () => {
    expect(readCut(`<s a='${'x'.repeat(200)}`, limits).at(-1)).toContain('over the limits')
    expect(readCut(`<s${attributes(65)}>`).at(-1)).toContain('over the limits')
  })

  test.each([
    ['100 MB of text', 1600, '<m><body>', 'x'.repeat(65_536), '</body></m>'],
    ['16 MB of one attribute', 250, "<m a='", 'x'.repeat(65_536), "'></m>"],
    ['12 MB of nested elements', 200, '<m>', '<x>'.repeat(20_000), undefined],
    ['13 MB of many elements', 200, '<m>', '<x/>'.repeat(16_000), '</m>'],
    ['16 MB of white space in a tag', 250, '<m ', ' '.repeat(65_536), '></m>'],
  ])(
    '%s are never held',
    (_where, rounds, start, middle, end) => {
      const { reader, events } = record()
      reader.write(ROOT)
      reader.write(start)
      let most = 0
      for (let round = 0; round < rounds; round++) {
        reader.write(middle)
        most = Math.max(most, reader.bufferedBytes)
      }
      expect(most).toBeLessThan(2 * 1024 * 1024 + 70_000)
      expect(reader.bufferedBytes).toBeLessThan(100)
      if (end === undefined) {
        for (let round = 0; round < rounds; round++) reader.write('</x>'.repeat(20_000))
        reader.write('</m>')
      } else reader.write(end)
      reader.write('<b/>')
      expect(events.slice(1)).toEqual([expect.stringContaining('skipped <m/>'), '<b/>'])
    },
    60_000,
  )
})

describe('a stanza that is refused at a child', () => {
  const readRefusing = (text: string, piece: number) => {
    const events: string[] = []
    const reader = new XmlStreamReader({
      onOpen() {},
      onElement: (root) => events.push(writeElement(root)),
      onSkipped: (head, { code }) => events.push(`skipped ${writeElement(head)} ${code}`),
      onChild: (root, { name, ns }) => {
        if (root.attrs.get('id') === '1') events.push(`child ${name} ${ns}`)
        return name === 'no' ? new XmqError('overloaded', 'busy') : undefined
      },
      onClose: () => events.push('closed'),
    })
    for (let from = 0; from < text.length; from += piece) reader.write(text.slice(from, from + piece))
    return events
  }

  test.each([1, 7, 10_000])('is skipped to its end, in pieces of %s', (piece) => {
    const inside = "<a><no/><m><m/></m></a><no xmlns='u' q='>'><m id='2'/><![CDATA[</m>]]></no>text<b/>"
    const text = `${ROOT}<m id='1'>${inside}</m><m id='3'><no/></m><m><a><no/></a></m></stream:stream>`
    expect(readRefusing(text, piece)).toEqual([
      'child a jabber:client',
      'child no u',
      "skipped <m id='1'/> overloaded",
      "skipped <m id='3'/> overloaded",
      '<m><a><no/></a></m>',
      'closed',
    ])
  })
})

describe('the work grows with the length of the text, not faster', () => {
  const cases: [string, (n: number) => string, number][] = [
    ['text, a character at a time', (n) => `<m><b>${'a'.repeat(n)}</b></m>`, 1],
    ['an attribute, a character at a time', (n) => `<m b='${'a'.repeat(n)}'/>`, 1],
    ['references, a character at a time', (n) => `<m>${'&amp;'.repeat(n / 5)}</m>`, 1],
    ['unfinished sections', (n) => `<m>${']'.repeat(n)}</m>`, 1],
    ['CDATA, a character at a time', (n) => `<m><![CDATA[${']'.repeat(n)}]]></m>`, 1],
    ['white space in an end tag', (n) => `<m></m${' '.repeat(n)}>`, 1],
    ['a long name', (n) => `<${'m'.repeat(n)}></${'m'.repeat(n)}>`, 1],
    ['nested elements', (n) => '<a>'.repeat(n / 7) + '</a>'.repeat(n / 7), 65_536],
    ['nested namespaces', (n) => "<a xmlns='u' xmlns:p='v'>".repeat(n / 29) + '</a>'.repeat(n / 29), 65_536],
    ['elements with attributes far from the next tag', (n) => `<m>${"<a b='1' c='2'/>".repeat(n / 16)}</m>`, 65_536],
    [
      'one tag with many attributes',
      (n) => `<m${Array.from({ length: n / 8 }, (_, i) => ` a${i}='1'`).join('')}/>`,
      100,
    ],
    ['returns', (n) => `<m>${'\r\n'.repeat(n / 2)}</m>`, 1],
  ]
  test.each(cases)('%s', (_name, make, chunk) => {
    const work = (n: number) => {
      const text = make(n)
      const reader = new XmlStreamReader({ onOpen() {}, onElement() {}, onSkipped() {}, onClose() {} })
      reader.write(ROOT)
      return countWork(() => {
        for (let at = 0; at < text.length; at += chunk) reader.write(text.slice(at, at + chunk))
      })
    }
    const small = work(20_000)
    const large = work(80_000)
    expect(small).toBeGreaterThan(1000)
    expect(large / small).toBeLessThan(4.8)
  })
})
