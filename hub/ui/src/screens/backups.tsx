// Every backup of the fleet, worst first.
import type { BackupRow } from '../wire/contract'
import { bytes, moment } from '../format'
import { query, to } from '../route'
import { useStatus } from '../state/status'
import { BACKUP, word } from '../words'
import { Command } from '../parts/command'
import { Listing } from '../parts/listing'
import { Empty } from '../parts/panel'
import { Screen } from '../parts/screen'
import { State } from '../parts/state'
import type { Column } from '../parts/table'
import { Ago } from '../parts/time'
import { chosen } from '../parts/filter'
import { shell } from '../format'

export const COLUMNS: Column<BackupRow>[] = [
  {
    name: 'Backup',
    sort: 'name',
    cell: (row) => (
      <>
        <a data-main href={to('backups', row.cluster, row.namespace, row.name)}>
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
        <State of={word(BACKUP, row.state)} stale={row.freshness?.stale} />
        {row.reason && <p class="reason muted">{row.reason}</p>}
      </>
    ),
    text: (row) => row.state + (row.reason && `: ${row.reason}`),
  },
  { name: 'Last success', sort: 'last', cell: (row) => <Ago at={row.backup?.lastSuccess} />, text: (row) => moment(row.backup?.lastSuccess) },
  { name: 'Next run', sort: 'next', wide: true, cell: (row) => <Ago at={row.backup?.nextRun} never="–" />, text: (row) => moment(row.backup?.nextRun) },
  {
    name: 'Added',
    sort: 'size',
    figures: true,
    wide: true,
    cell: (row) => bytes(row.backup?.lastRun?.bytesAdded),
    text: (row) => row.backup?.lastRun?.bytesAdded ?? '',
  },
  {
    name: 'Repository',
    wide: true,
    cell: (row) => (row.backup?.resticId ? <a href={to('repositories', row.backup.resticId)}>{row.backup.repositoryName}</a> : row.backup?.repositoryName),
    text: (row) => row.backup?.repositoryName ?? '',
  },
]

const EXAMPLE = `apiVersion: backup.resticbackup.io/v1alpha1
kind: ResticBackup
metadata: { name: orders, namespace: shop }
spec:
  repositoryRef: { name: nas }
  source: { pvc: { claimName: data } }
  schedule: "0 2 * * *"`

function command(): string {
  const parts = ['fleet backups', query('q') && shell(query('q'))]
  for (const [name, value] of [['cluster', query('cluster')], ['namespace', query('namespace')], ['state', chosen().join(',')], ['sort', query('sort')]] as const) {
    if (value) parts.push(`--${name} ${shell(value)}`)
  }
  return parts.filter(Boolean).join(' ')
}

export default function Backups() {
  const status = useStatus()
  const narrowed = query('q') || query('cluster') || query('namespace')
  return (
    <Screen title="Backups">
      <Listing
        collection="backups"
        noun={['backup', 'backups']}
        words={BACKUP}
        counts={narrowed ? undefined : status.data?.backupsByState}
        columns={COLUMNS}
        pick={(row) => row.backup}
        id={(row) => `${row.cluster}/${row.namespace}/${row.name}`}
        stale={(row) => row.freshness?.stale ?? false}
        empty={
          <Empty title="No cluster reports a backup.">
            <p>A ResticBackup in a namespace of a connected cluster makes one:</p>
            <pre tabIndex={0}>{EXAMPLE}</pre>
          </Empty>
        }
      />
      <Command text={command()} />
    </Screen>
  )
}
