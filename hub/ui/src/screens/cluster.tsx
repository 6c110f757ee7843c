// One cluster: whether it reports, and what it has.
import { FleetView, type ClusterRow } from '../wire/contract'
import { number } from '../format'
import { path } from '../route'
import { useAsk } from '../state/ask'
import { CLUSTER, word } from '../words'
import { COLUMNS } from './backups'
import { received } from './clusters'
import { Command } from '../parts/command'
import { Facts } from '../parts/facts'
import { isStale, keyed } from '../parts/listing'
import { Empty, Notice, Panel } from '../parts/panel'
import { Screen, Section } from '../parts/screen'
import { State } from '../parts/state'
import { Table } from '../parts/table'
import { Ago, At } from '../parts/time'
import { Around, useObject } from './object'

const WORST = 20

export default function Cluster() {
  const [, name = ''] = path.value
  const asked = useObject('clusters', name, name)
  const row = asked.data?.row?.cluster
  return (
    <Screen title={name} up={['Clusters', '/clusters']}>
      <Panel asked={asked} rows={6}>
        {(of) => (
          <>
            {row && <Details row={row} />}
            {row && <Backups row={row} />}
            <Around of={of} />
          </>
        )}
      </Panel>
      <Command text={`fleet clusters ${name}`} />
    </Screen>
  )
}

function Details({ row }: { row: ClusterRow }) {
  return (
    <>
      <div class="headline">
        <State of={word(CLUSTER, row.state)} />
        {row.reason && <p>{row.reason}</p>}
      </div>
      {row.freshness?.stale && (
        <Notice tone="unknown">
          Silent since <Ago at={row.freshness.lastHeard} />. Everything of this cluster is what was known then. Check that its pod fleet-spoke runs and reaches the hub: <code>kubectl -n restic-fleet logs deploy/fleet-spoke</code>
        </Notice>
      )}
      {!row.complete && <Notice tone="warn">The hub has not received everything from this cluster yet; none of its snapshots is removed before.</Notice>}
      <Facts
        of={[
          ['Heard', <At at={row.freshness?.lastHeard} />],
          ['Connected since', row.connectedSince !== undefined && <At at={row.connectedSince} />],
          ['Backups', <a href={`/backups?cluster=${encodeURIComponent(row.name)}`}>{number(received(row, row.backups))}</a>],
          ['Unwell', number(received(row, row.backupsUnwell))],
          ['Coverage', <a href={`/coverage?cluster=${encodeURIComponent(row.name)}`}>claims without a backup</a>],
          ['Repositories', <a href={`/repositories?cluster=${encodeURIComponent(row.name)}`}>{number(received(row, row.repositories))}</a>],
          ['Operator', row.version],
          ['Kubernetes', row.kubernetesVersion],
          ['Cluster uid', row.clusterUid],
        ]}
      />
    </>
  )
}

function Backups({ row: { name: cluster, complete } }: { row: ClusterRow }) {
  const asked = useAsk(`cluster backups ${cluster}`, (stop) => FleetView.list({ collection: 'backups', filter: { clusters: [cluster] }, pageSize: WORST }, stop), { cluster })
  return (
    <Section title="Backups, worst first" aside={<a href={`/backups?cluster=${encodeURIComponent(cluster)}`}>All</a>}>
      <Panel asked={asked}>
        {(page) =>
          page.rows.length === 0 ? (
            <Empty title={complete ? 'This cluster has no backup.' : 'No backup of this cluster is known yet.'} />
          ) : (
            <Table caption={`Backups of ${cluster}`} columns={COLUMNS} rows={keyed(page.rows, (row) => row.backup)} id={(row) => row.key} stale={isStale} />
          )
        }
      </Panel>
    </Section>
  )
}
