// Retention policies: which run, which wait for a person, and when they are due.
import type { PolicyRow } from '../wire/contract'
import { moment } from '../format'
import { to } from '../route'
import { POLICY, word } from '../words'
import { Command } from '../parts/command'
import { Listing } from '../parts/listing'
import { Empty } from '../parts/panel'
import { Screen } from '../parts/screen'
import { State } from '../parts/state'
import type { Column } from '../parts/table'
import { Ago } from '../parts/time'

const COLUMNS: Column<PolicyRow>[] = [
  {
    name: 'Policy',
    sort: 'name',
    cell: (row) => (
      <>
        <a data-main href={to('policies', row.cluster, row.namespace, row.name)}>
          {row.namespace}/{row.name}
        </a>
        <span class="of muted"> in {row.cluster}</span>
      </>
    ),
    text: (row) => `${row.cluster}/${row.namespace}/${row.name}`,
  },
  {
    name: 'State',
    sort: 'state',
    cell: (row) => (
      <>
        <State of={word(POLICY, row.state)} stale={row.freshness?.stale} />
        {row.reason && <p class="reason muted">{row.reason}</p>}
      </>
    ),
    text: (row) => row.state + (row.reason && `: ${row.reason}`),
  },
  { name: 'Last run', sort: 'last', cell: (row) => <Ago at={row.policy?.lastRun} />, text: (row) => moment(row.policy?.lastRun) },
  { name: 'Next run', cell: (row) => <Ago at={row.nextRun} never="–" />, text: (row) => moment(row.nextRun) },
  {
    name: 'Repository',
    wide: true,
    cell: (row) => (row.policy?.resticId ? <a href={to('repositories', row.policy.resticId)}>{row.policy.repositoryName}</a> : row.policy?.repositoryName),
    text: (row) => row.policy?.repositoryName ?? '',
  },
]

export default function Policies() {
  return (
    <Screen title="Retention">
      <p class="lead">
        Policies say which snapshots are kept. What a run removes is in its <a href="/plans">plan</a>.
      </p>
      <Listing
        collection="policies"
        noun={['policy', 'policies']}
        words={POLICY}
        columns={COLUMNS}
        pick={(row) => row.policy}
        id={(row) => `${row.cluster}/${row.namespace}/${row.name}`}
        stale={(row) => row.freshness?.stale ?? false}
        empty={
          <Empty title="No cluster reports a GlobalRetentionPolicy.">
            <p>Without one every snapshot is kept.</p>
          </Empty>
        }
      />
      <Command text="fleet plan list" />
    </Screen>
  )
}
