// Every backup of the fleet, worst first.
import type { BackupRow } from '../wire/contract'
import { bytes, figure, moment, shell } from '../format'
import { query } from '../route'
import { useStatus } from '../state/status'
import { BACKUP } from '../words'
import { named, repository, told } from '../parts/columns'
import { Command } from '../parts/command'
import { ExampleBackup } from '../parts/example'
import { chosen } from '../parts/filter'
import { Listing } from '../parts/listing'
import { Empty } from '../parts/panel'
import { Screen } from '../parts/screen'
import type { Column } from '../parts/table'
import { Ago } from '../parts/time'

export const COLUMNS: Column<BackupRow>[] = [
  named('Backup', 'backups'),
  told(BACKUP),
  { name: 'Last success', sort: 'last', cell: (row) => <Ago at={row.backup?.lastSuccess} />, text: (row) => moment(row.backup?.lastSuccess) },
  { name: 'Next run', sort: 'next', wide: true, cell: (row) => <Ago at={row.backup?.nextRun} never="–" />, text: (row) => moment(row.backup?.nextRun) },
  {
    name: 'Added',
    sort: 'size',
    figures: true,
    wide: true,
    cell: (row) => bytes(figure(row.backup?.lastRun, 'bytesAdded')),
    text: (row) => figure(row.backup?.lastRun, 'bytesAdded') ?? '',
  },
  repository((row) => row.backup),
]

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
        empty={
          <Empty title="No cluster reports a backup.">
            <p>A ResticBackup in a namespace of a connected cluster makes one:</p>
            <ExampleBackup />
          </Empty>
        }
      />
      <Command text={command()} />
    </Screen>
  )
}
