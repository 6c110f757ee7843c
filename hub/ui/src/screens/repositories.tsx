// Every physical repository once, however many clusters share it.
import type { RepositoryRow } from '../wire/contract'
import { address } from './object'
import { bytes, moment, number, short } from '../format'
import { now } from '../state/clock'
import { REPOSITORY, word } from '../words'
import { Command } from '../parts/command'
import { Listing, type Keyed } from '../parts/listing'
import { Empty, Notice } from '../parts/panel'
import { Screen } from '../parts/screen'
import { State } from '../parts/state'
import type { Column } from '../parts/table'
import { Ago } from '../parts/time'

/** Figures are read daily unless a resource sets another interval; three of them missed, and they are old. */
export const OLD = 3 * 86_400_000

export function figuresOld(row: RepositoryRow): boolean {
  const at = row.statistics?.asOf
  return (row.freshness?.stale ?? false) || (at !== undefined && now.value - at > OLD)
}

const COLUMNS: Column<Keyed<RepositoryRow>>[] = [
  { name: 'Repository', sort: 'name', cell: (row) => <a data-main href={address('repositories', row.key)}>{row.name || short(row.resticId)}</a>, text: (row) => row.name },
  {
    name: 'State',
    sort: 'state',
    cell: (row) => (
      <>
        <State of={word(REPOSITORY, row.state)} />
        {row.alarm && <Notice tone="bad">{row.alarm}</Notice>}
      </>
    ),
    text: (row) => row.state + (row.alarm && `: ${row.alarm}`),
  },
  { name: 'Stored', sort: 'size', figures: true, cell: (row) => <span class={figuresOld(row) ? 'old' : undefined}>{bytes(row.statistics?.storedBytes)}</span>, text: (row) => row.statistics?.storedBytes ?? '' },
  { name: 'Snapshots', sort: 'snapshots', figures: true, cell: (row) => <span class={figuresOld(row) ? 'old' : undefined}>{number(row.statistics?.snapshots)}</span>, text: (row) => row.statistics?.snapshots ?? '' },
  { name: 'Backups', sort: 'backups', figures: true, cell: (row) => number(row.backups), text: (row) => row.backups },
  { name: 'Clusters', wide: true, cell: (row) => names(row.clusters), text: (row) => row.clusters.join(' ') },
  { name: 'Figures of', wide: true, cell: (row) => <Ago at={row.statistics?.asOf} />, text: (row) => moment(row.statistics?.asOf) },
]

const SHOWN = 3

function names(clusters: string[]): string {
  const more = clusters.length - SHOWN
  return clusters.slice(0, SHOWN).join(', ') + (more > 0 ? ` and ${more} more` : '')
}

export default function Repositories() {
  return (
    <Screen title="Repositories">
      <Listing
        collection="repositories"
        noun={['repository', 'repositories']}
        words={REPOSITORY}
        columns={COLUMNS}
        pick={(row) => row.repository}
        empty={
          <Empty title="No cluster reports a repository.">
            <p>A ResticRepository in a connected cluster makes one appear here, once for all clusters that use it.</p>
          </Empty>
        }
      />
      <Command text="fleet repos -o wide" />
    </Screen>
  )
}
