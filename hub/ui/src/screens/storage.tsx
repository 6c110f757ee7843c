// What all repositories store, how it grows, and when there is no room any more.
import { useEffect, useState } from 'preact/hooks'
import { FleetView, type StoragePoint, type StorageResponse, type StorageRow } from '../wire/contract'
import { address } from './object'
import { bytes, change, moment, number, shell, short, size } from '../format'
import { go, query, withQuery } from '../route'
import { useAsk } from '../state/ask'
import { now } from '../state/clock'
import { count } from '../words'
import { Command } from '../parts/command'
import { Export } from '../parts/export'
import { Facts } from '../parts/facts'
import { lazy } from '../parts/lazy'
import { Empty, Notice, Panel } from '../parts/panel'
import { Ranges } from '../parts/ranges'
import { Screen, Section } from '../parts/screen'
import { Table, type Column } from '../parts/table'
import { Ago, At } from '../parts/time'
import { OLD } from './repositories'
import { none, sorted, stored } from './stored'

const Plot = lazy(() => import('../parts/plot'))
const RANGES = ['30', '90', '365', '732']
const EVERY = 300_000

const COLUMNS: Column<StorageRow>[] = [
  { name: 'Repository', sort: 'name', cell: (row) => <a data-main href={address('repositories', row.resticId)}>{row.name || short(row.resticId)}</a>, text: (row) => row.name || row.resticId },
  { name: 'Stored', sort: 'size', figures: true, cell: (row) => bytes(row.storedBytes), text: (row) => row.storedBytes ?? '' },
  {
    name: 'In 30 days',
    sort: 'growth',
    figures: true,
    cell: (row) => change(row.growthPerMonth),
    text: (row) => row.growthPerMonth ?? '',
  },
  { name: 'Without compression', figures: true, wide: true, cell: (row) => bytes(row.uncompressedBytes), text: (row) => row.uncompressedBytes ?? '' },
  // Of figures that are not known a zero is none.
  { name: 'Snapshots', figures: true, wide: true, cell: (row) => number(none(row) ? undefined : row.snapshots), text: (row) => (none(row) ? '' : row.snapshots) },
  { name: 'Figures of', cell: (row) => <Ago at={row.at} never="not read yet" />, text: (row) => (row.at === undefined ? '' : moment(row.at)) },
  { name: 'Why not known', cell: (row) => row.growthUnknown && <p class="reason muted">{row.growthUnknown}</p>, text: (row) => row.growthUnknown },
]

const DAYS: Column<StoragePoint>[] = [
  { name: 'Day', cell: (point) => moment(point.at), text: (point) => moment(point.at) },
  { name: 'Stored', figures: true, cell: (point) => bytes(point.storedBytes), text: (point) => point.storedBytes },
  { name: 'Repositories', figures: true, cell: (point) => number(point.repositories), text: (point) => point.repositories },
]

function range(): string {
  return RANGES.includes(query('days')) ? query('days') : '90'
}

function old(row: StorageRow): boolean {
  return row.at !== undefined && now.value - row.at > OLD
}

export default function Storage() {
  const days = range()
  const room = query('capacity')
  const capacityBytes = size(room)
  const request = { days: Number(days), capacityBytes: capacityBytes ?? 0 }
  const asked = useAsk(`storage ${JSON.stringify(request)}`, (stop) => FleetView.storage(request, stop), { every: EVERY })
  const command = ['fleet storage', days !== '90' && `--days ${days}`, capacityBytes !== undefined && `--capacity ${shell(room)}`].filter(Boolean).join(' ')
  return (
    <Screen title="Storage">
      <p class="lead">What the repositories store that you see as a whole, each once, however many clusters share it.</p>
      <Room />
      <Panel asked={asked} rows={8}>
        {(of) =>
          of.repositories === 0 ? (
            <Empty title="No repository is known that you see as a whole.">
              <p>Its figures are those of every cluster that uses it, so a right for some of them does not show it.</p>
            </Empty>
          ) : (
            <>
              <Sum of={of} asked={capacityBytes !== undefined} />
              <OverTime points={of.points} days={days} />
              <Repositories of={of} />
            </>
          )
        }
      </Panel>
      <Command text={command} />
    </Screen>
  )
}

/** How much room there is: nobody but a person knows. It is in the address. */
function Room() {
  const given = query('capacity')
  const [text, setText] = useState(given)
  useEffect(() => setText(given), [given])
  const wrong = given !== '' && size(given) === undefined
  const submit = (event: Event) => {
    event.preventDefault()
    go(withQuery({ capacity: text.trim() }), true)
  }
  return (
    <>
      <form class="filter" onSubmit={submit}>
        <input data-filter aria-label="Room for all repositories, such as 10TiB" placeholder="Room for all repositories, such as 10TiB" value={text} aria-invalid={wrong} autocomplete="off" spellcheck={false} onInput={(event) => setText(event.currentTarget.value)} />
        <button type="submit">When is it full?</button>
      </form>
      {wrong && (
        <Notice tone="warn">
          <code>{given}</code> is not a size such as 10TiB or 500GB.
        </Notice>
      )}
    </>
  )
}

function Sum({ of, asked }: { of: StorageResponse; asked: boolean }) {
  const unknown = [of.unknown > 0 && `the size of ${count(of.unknown, 'repository', 'repositories')}`, of.growthUnknown > 0 && `the growth of ${count(of.growthUnknown, 'repository', 'repositories')}`].filter(Boolean)
  return (
    <div class="stack">
      <Facts
        of={[
          ['Stored', bytes(stored(of))],
          ['In 30 days', of.growthPerMonth === undefined ? 'not known' : change(of.growthPerMonth)],
          ['Repositories', number(of.repositories)],
          ['Full, at this rate', asked && (of.full === undefined ? of.fullUnknown : <At at={of.full} />)],
          ['As of', moment(of.asOf, true)],
        ]}
      />
      {unknown.length > 0 && <Notice tone="unknown">Not in these sums, because it is not known: {unknown.join(', and ')}. The rows below say why.</Notice>}
    </div>
  )
}

function OverTime({ points, days }: { points: StoragePoint[]; days: string }) {
  return (
    <Section title="Stored over time" aside={<Ranges all={RANGES} days={days} />}>
      {points.length === 0 ? (
        <Empty title={`No figures of the last ${days} days.`} />
      ) : (
        <>
          <p class="muted">Each day of the repositories that had figures by then: it rises too when one of them is read for the first time.</p>
          {points.length > 1 && <Plot points={points} second="repositories" />}
          <details>
            <summary>The same figures as a table</summary>
            <Table caption="Stored over time" columns={DAYS} rows={[...points].reverse()} id={(point) => String(point.at)} />
            <Export name="storage-days" columns={DAYS} all={async () => ({ rows: points })} />
          </details>
        </>
      )}
    </Section>
  )
}

function Repositories({ of }: { of: StorageResponse }) {
  const by = query('sort')
  const rows = sorted(of.rows, by)
  const hidden = of.repositories - rows.length
  return (
    <Section title="Repositories" aside={hidden > 0 && <span class="muted small">the largest {number(rows.length)} of {number(of.repositories)}</span>}>
      <Table caption="Repositories by what they store" columns={COLUMNS} rows={rows} id={(row) => row.resticId} stale={old} sorting={{ by, set: (by) => go(withQuery({ sort: by }), true) }} />
      <div class="under">
        <span />
        <Export name="storage" columns={COLUMNS} all={async () => ({ rows, cut: hidden > 0 })} />
      </div>
    </Section>
  )
}
