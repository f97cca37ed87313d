/**
 * Producers by text alone, all in one process: each stanza publishes a batch and must have one answer. Either a window of
 * unanswered stanzas, that waits when it is told to, or a rate that heeds nothing.
 */
import { Answers, countOf } from './answers.mjs'
import { nowMs, serve } from '../through/child.mjs'
import { openSession } from '../through/session.mjs'

/** So much may wait for the server in our own sockets: it sets the pace then, not we. */
const UNSENT_BYTES_MAX = 4 * 1024 * 1024
const UNANSWERED = 0
const CONFIRMED = 1
const REFUSED = 2

serve(async ({ server, users, password, queue, topic, items, bodyBytes, window }) => {
  const body = `<json xmlns='urn:xmpp:json:0'>"${'x'.repeat(bodyBytes - 2)}"</json>`
  const counts = {
    wanted: 0,
    offered: 0,
    offeredBytes: 0,
    confirmed: 0,
    refused: 0,
    twice: 0,
    unexplained: 0,
    paused: 0,
    withheldMs: 0,
    confirmedSum: 0,
  }
  const codes = {}
  let isOpen = false
  let ticker

  const sessions = []
  for (const [index, user] of users.entries()) {
    const { socket } = await openSession(server, user, password)
    const session = { index, socket, serial: 0, states: new Uint8Array(1 << 16), isWaiting: false }
    const answers = new Answers((head, text) => answered(session, head, text))
    socket.on('data', (chunk) => {
      answers.read(chunk.toString('latin1'))
      if (isOpen) fill(session)
    })
    socket.on('error', () => undefined)
    sessions.push(session)
  }

  const stanza = (session) => {
    const serial = session.serial++
    if (serial >= session.states.length) {
      const grown = new Uint8Array(session.states.length * 2)
      grown.set(session.states)
      session.states = grown
    }
    const name = `${session.index}.${serial}`
    let text = `<iq type='set' id='${name}' to='${queue}'><publish xmlns='xmq:queue:1'>`
    for (let item = 0; item < items; item++) text += `<item id='${name}.${item}' topic='${topic}'>${body}</item>`
    counts.offered += items
    text += '</publish></iq>'
    counts.offeredBytes += text.length
    return text
  }
  const answered = (session, head, text) => {
    const serial = Number(/\bid=['"]\d+\.(\d+)['"]/.exec(head)?.[1] ?? Number.NaN)
    if (Number.isNaN(serial)) return
    if (session.states[serial] !== UNANSWERED) {
      counts.twice++
      return
    }
    const isError = /\btype=['"]error/.test(head)
    const failures = isError ? items : countOf(text, '<error')
    session.states[serial] = isError ? REFUSED : CONFIRMED
    counts.confirmed += items - failures
    counts.refused += failures
    for (let item = 0; item < items - failures; item++) counts.confirmedSum += (session.index + 1) * (serial + 1) + item
    if (failures === 0) return
    const code = /<failure [^>]*\bcode=['"]([^'"]+)/.exec(text)?.[1]
    if (code === undefined) counts.unexplained += failures
    codes[code ?? 'none'] = (codes[code ?? 'none'] ?? 0) + failures
    const seconds = Number(/\bretry-after=['"](\d+)/.exec(text)?.[1] ?? 1)
    if (!isOpen || session.isWaiting) return
    counts.paused++
    session.isWaiting = true
    setTimeout(() => {
      session.isWaiting = false
      if (isOpen) fill(session)
    }, seconds * 1000)
  }
  const unanswered = () => counts.offered - counts.confirmed - counts.refused
  const fill = (session) => {
    if (session.isWaiting) return
    const share = Math.floor((window - unanswered()) / items / sessions.length)
    if (share <= 0) return
    let text = ''
    for (let index = 0; index < share; index++) text += stanza(session)
    session.socket.write(text)
  }
  /** Messages that wait in our own process, since TCP does not take them. */
  const unsent = () => {
    const bytes = sessions.reduce((sum, { socket }) => sum + socket.writableLength, 0)
    return bytes === 0 ? 0 : (bytes / counts.offeredBytes) * counts.offered
  }
  const tick = (rate, startedAt, sentBefore, wantedBefore) => {
    const due = Math.floor(((nowMs() - startedAt) * rate) / 1000)
    counts.wanted = wantedBefore + due
    while (counts.offered - sentBefore < due) {
      const ready = sessions.filter(({ socket }) => socket.writableLength < UNSENT_BYTES_MAX)
      if (ready.length === 0) {
        counts.withheldMs++
        return
      }
      for (const session of ready) {
        const share = Math.min(20, Math.ceil((due - (counts.offered - sentBefore)) / items / ready.length))
        if (share <= 0) return
        let text = ''
        for (let index = 0; index < share; index++) text += stanza(session)
        session.socket.write(text)
      }
    }
  }

  return {
    sample: () => ({ ...counts, codes: { ...codes }, unanswered: unanswered(), unsent: unsent(), at: nowMs() }),
    /** A window of unanswered messages, politely. */
    fill: () => {
      isOpen = true
      for (const session of sessions) fill(session)
    },
    /** @param {number} rate messages a second of all sessions, whatever they are told */
    flood: (rate) => {
      const startedAt = nowMs()
      const { offered, wanted } = counts
      ticker = setInterval(() => tick(rate, startedAt, offered, wanted), 1)
    },
    stop: () => {
      isOpen = false
      clearInterval(ticker)
    },
  }
})
