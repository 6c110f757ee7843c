// Size and snapshots of a repository over time: a plot, and the same figures as a table.
import { lazy } from '../parts/lazy'
import { FleetView, type HistoryPoint } from '../wire/contract'
import { bytes, moment, number } from '../format'
import { query } from '../route'
import { useAsk } from '../state/ask'
import { Export } from '../parts/export'
import { Empty, Panel } from '../parts/panel'
import { Ranges } from '../parts/ranges'
import { Section } from '../parts/screen'
import { Table, type Column } from '../parts/table'

const Plot = lazy(() => import('../parts/plot'))
const RANGES = ['7', '30', '90', '365']
const DAY = 86_400_000

const COLUMNS: Column<HistoryPoint>[] = [
  { name: 'Time', cell: (point) => moment(point.at), text: (point) => moment(point.at) },
  { name: 'Stored', figures: true, cell: (point) => bytes(point.storedBytes), text: (point) => point.storedBytes },
  { name: 'Without compression', figures: true, wide: true, cell: (point) => bytes(point.uncompressedBytes), text: (point) => point.uncompressedBytes },
  { name: 'Snapshots', figures: true, cell: (point) => number(point.snapshots), text: (point) => point.snapshots },
]

/** Bytes a day, over all points; undefined for less than a day. */
function perDay(points: HistoryPoint[]): number | undefined {
  const first = points[0]
  const last = points.at(-1)
  if (!first?.at || !last?.at || last.at - first.at < DAY) return undefined
  return ((last.storedBytes - first.storedBytes) / (last.at - first.at)) * DAY
}

export function Growth({ repository }: { repository: string }) {
  const days = RANGES.includes(query('days')) ? query('days') : '30'
  const asked = useAsk(`history ${repository} ${days}`, (stop) => FleetView.history({ repository, days: Number(days) }, stop), { every: 300_000 })
  return (
    <Section title="Size over time" aside={<Ranges all={RANGES} days={days} />}>
      <Panel asked={asked}>
        {({ points }) => {
          if (points.length === 0) return <Empty title={`No figures of the last ${days} days.`} />
          const growth = perDay(points)
          return (
            <>
              {growth !== undefined && <p class="muted">{growth === 0 ? 'no growth' : `${growth > 0 ? '+' : '−'}${bytes(Math.abs(growth))} a day`} over this range</p>}
              {points.length > 1 && <Plot points={points} second="snapshots" />}
              <details>
                <summary>The same figures as a table</summary>
                <Table caption="Figures over time" columns={COLUMNS} rows={[...points].reverse()} id={(point) => String(point.at)} />
                <Export name="history" columns={COLUMNS} all={async () => ({ rows: points })} />
              </details>
            </>
          )
        }}
      </Panel>
    </Section>
  )
}
