/** Figures as a table, and who wins. */
const REFERENCE = 'rabbitmq-quorum'

function median(numbers) {
  const sorted = numbers.filter((number) => number !== undefined).sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

function row(cells) {
  return `| ${cells.map((cell, index) => (index === 0 ? cell.padEnd(28) : cell.padStart(9))).join(' | ')} |`
}

/** A Markdown table: medians, and the ratios to RabbitMQ's quorum queue of each round. */
export function table(systems, results, disk) {
  const reference = results[REFERENCE]
  const of = (rounds, key) => median(rounds.map((round) => round[key]))
  const lines = [
    row([
      'system',
      'msg/s',
      'of quorum',
      'p50 ms',
      'p99 ms',
      'server µs',
      'XMPP µs',
      'pub. µs',
      'worker µs',
      'written B',
      'disk MB',
    ]),
    row(['---', ...Array.from({ length: 10 }, () => '---:')]),
  ]
  for (const { name, title } of systems) {
    const rounds = results[name]
    if (rounds === undefined) continue
    const ratios = reference && rounds.map(({ perSecond }, index) => perSecond / reference[index].perSecond)
    lines.push(
      row([
        title,
        Math.round(of(rounds, 'perSecond')).toLocaleString('en'),
        ratios === undefined ? '' : median(ratios).toFixed(2),
        of(rounds, 'p50').toFixed(2),
        of(rounds, 'p99').toFixed(2),
        of(rounds, 'serverUs').toFixed(0),
        of(rounds, 'otherUs') === 0 ? '' : of(rounds, 'otherUs').toFixed(0),
        of(rounds, 'producerUs').toFixed(0),
        of(rounds, 'workerUs').toFixed(0),
        of(rounds, 'writtenBytes').toFixed(0),
        (disk[name] / 1e6).toFixed(1),
      ]),
    )
  }
  return lines.join('\n')
}

/** All systems, the fastest first. */
export function verdict(systems, results) {
  const of = (name) => median(results[name].map(({ perSecond }) => perSecond))
  const ranked = systems.filter(({ name }) => results[name] !== undefined).sort((a, b) => of(b.name) - of(a.name))
  return `Most messages a second: ${ranked.map(({ title, name }) => `${title} ${Math.round(of(name)).toLocaleString('en')}`).join(' > ')}`
}
