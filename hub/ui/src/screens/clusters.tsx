// Which clusters report, and which are silent.
import type { ClusterRow } from '../wire/contract'
import { moment, number } from '../format'
import { to } from '../route'
import { CLUSTER, word } from '../words'
import { Command } from '../parts/command'
import { Listing } from '../parts/listing'
import { Empty } from '../parts/panel'
import { Screen } from '../parts/screen'
import { State } from '../parts/state'
import type { Column } from '../parts/table'
import { Ago } from '../parts/time'

/** A count of a cluster: what has not come yet is not zero. */
export function received(row: ClusterRow, count: number): number | undefined {
  return count > 0 || row.complete ? count : undefined
}

const COLUMNS: Column<ClusterRow>[] = [
  { name: 'Cluster', sort: 'name', cell: (row) => <a data-main href={to('clusters', row.name)}>{row.name}</a>, text: (row) => row.name },
  {
    name: 'State',
    sort: 'state',
    cell: (row) => (
      <>
        <State of={word(CLUSTER, row.state)} />
        {row.reason && <p class="reason muted">{row.reason}</p>}
      </>
    ),
    text: (row) => row.state + (row.reason && `: ${row.reason}`),
  },
  { name: 'Heard', sort: 'heard', cell: (row) => <Ago at={row.freshness?.lastHeard} />, text: (row) => moment(row.freshness?.lastHeard) },
  { name: 'Backups', sort: 'backups', figures: true, cell: (row) => <a href={`/backups?cluster=${encodeURIComponent(row.name)}`}>{number(received(row, row.backups))}</a>, text: (row) => received(row, row.backups) ?? '' },
  {
    name: 'Unwell',
    sort: 'unwell',
    figures: true,
    cell: (row) => (row.backupsUnwell > 0 ? <a href={`/backups?cluster=${encodeURIComponent(row.name)}&state=failed,partial,late`}>{number(row.backupsUnwell)}</a> : number(received(row, 0))),
    text: (row) => received(row, row.backupsUnwell) ?? '',
  },
  { name: 'Repositories', sort: 'repositories', figures: true, wide: true, cell: (row) => number(received(row, row.repositories)), text: (row) => received(row, row.repositories) ?? '' },
  { name: 'Kubernetes', wide: true, cell: (row) => row.kubernetesVersion, text: (row) => row.kubernetesVersion },
  { name: 'Operator', wide: true, cell: (row) => row.version, text: (row) => row.version },
]

export default function Clusters() {
  return (
    <Screen title="Clusters">
      <Listing
        collection="clusters"
        noun={['cluster', 'clusters']}
        words={CLUSTER}
        columns={COLUMNS}
        pick={(row) => row.cluster}
        empty={
          <Empty title="No cluster has connected yet.">
            <p>A cluster joins with one command, which this prints with its token:</p>
            <Command text="fleet clusters join NAME" label="In a terminal" />
          </Empty>
        }
      />
      <Command text="fleet clusters" />
    </Screen>
  )
}
