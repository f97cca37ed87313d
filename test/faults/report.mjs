/** What a run says at its end: a line for each scenario, and the table of docs/failure-modes.md, made from the last run of each. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const PAGE = fileURLToPath(new URL('../../docs/failure-modes.md', import.meta.url))
const RECORD = fileURLToPath(new URL('last-run.json', import.meta.url))
const BEGIN = '<!-- measured: begin -->'
const END = '<!-- measured: end -->'

/** The middle one, and the largest. */
function spread(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b)
  return { p50: Math.round(sorted[Math.floor((sorted.length - 1) / 2)]), max: Math.round(sorted.at(-1)) }
}

/** Times until service resumed, as a row keeps them. */
export function summarise(resumed) {
  if (resumed.length === 0) return undefined
  const of = (name) => spread(resumed.map((one) => one[name]))
  return { up: of('upMs'), confirm: of('confirmMs'), delivery: of('deliveryMs') }
}

function counts(record) {
  const entries = Object.entries(record).sort(([, a], [, b]) => b - a)
  return entries.map(([what, count]) => `${count} (${what})`).join(', ')
}

/** One line about one scenario. */
export function describe({ server, scenario, times, verdict, resumed, seconds }) {
  const { confirmed, finished, dead, lost, again, twice, violationCount } = verdict
  const parts = [
    `${times} times`,
    `${confirmed} confirmed, ${finished} finished, dead: ${counts(dead) || 'none'}`,
    `${lost} lost`,
    `begun again: ${counts(again) || 'none'}`,
    `finished twice: ${counts(twice) || 'none'}`,
  ]
  if (resumed !== undefined) parts.push(`first confirm after ${resumed.confirm.p50}/${resumed.confirm.max} ms`)
  if (resumed !== undefined)
    parts.push(`first delivery after ${resumed.delivery.p50}/${resumed.delivery.max} ms (p50/max)`)
  return `${violationCount === 0 ? '✓' : '✗'} ${scenario} on ${server}: ${parts.join('; ')}  ${seconds.toFixed(1)} s`
}

/** Keeps these rows as the last run of their scenarios, and writes the table of all of them into the page. */
export function writeTable(rows) {
  const known = existsSync(RECORD) ? JSON.parse(readFileSync(RECORD, 'utf8')) : []
  const isNew = (row) => rows.some(({ scenario, server }) => scenario === row.scenario && server === row.server)
  const all = [...known.filter((row) => !isNew(row)), ...rows].sort((a, b) =>
    `${a.scenario} ${a.server}` < `${b.scenario} ${b.server}` ? -1 : 1,
  )
  // One row a line: changes of one scenario touch one line.
  writeFileSync(RECORD, `[\n${all.map((row) => JSON.stringify(row)).join(',\n')}\n]\n`)
  const page = readFileSync(PAGE, 'utf8')
  const [before, after] = [page.indexOf(BEGIN), page.indexOf(END)]
  if (before === -1 || after === -1) throw new Error(`docs/failure-modes.md lacks the marks ${BEGIN} and ${END}.`)
  writeFileSync(PAGE, `${page.slice(0, before + BEGIN.length)}\n\n${tableOf(all)}\n\n${page.slice(after)}`)
}

function tableOf(rows) {
  const head = [
    'fault',
    'promise',
    'server',
    'times',
    'confirmed',
    'lost',
    'begun again, and why',
    'finished twice',
    'service after',
  ]
  const body = rows.map(({ fault, promise, server, times, verdict, resumed }) => [
    fault,
    promise,
    server,
    times,
    verdict.confirmed,
    verdict.lost,
    counts(verdict.again) || '0',
    counts(verdict.twice) || '0',
    resumed === undefined
      ? ''
      : `confirm ${resumed.confirm.p50} / ${resumed.confirm.max} ms, delivery ${resumed.delivery.p50} / ${resumed.delivery.max} ms`,
  ])
  return [head, head.map(() => '---'), ...body].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}
