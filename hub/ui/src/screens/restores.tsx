// Every ResticRestore of the fleet, worst first.
import type { RestoreRow } from '../wire/contract'
import { bytes, moment, number } from '../format'
import { RESTORE_ROW } from '../words'
import { named, told } from '../parts/columns'
import { Command } from '../parts/command'
import { Listing } from '../parts/listing'
import { Empty } from '../parts/panel'
import { Progress } from '../parts/progress'
import { Screen } from '../parts/screen'
import type { Column } from '../parts/table'
import { Ago } from '../parts/time'

const COLUMNS: Column<RestoreRow>[] = [
  named('Restore', 'restores'),
  told(RESTORE_ROW, (row) => row.state === 'running' && <Progress of={row.restore?.progress} what={`Progress of ${row.name}`} />),
  { name: 'Target', cell: (row) => row.restore?.target, text: (row) => row.restore?.target ?? '' },
  { name: 'Restored', figures: true, wide: true, cell: (row) => (row.restore?.files ? `${bytes(row.restore.bytes)} in ${number(row.restore.files)} files` : '–'), text: (row) => (row.restore?.files ? row.restore.bytes : '') },
  { name: 'Began', sort: 'started', cell: (row) => <Ago at={row.restore?.started} never="not yet" />, text: (row) => moment(row.restore?.started) },
]

export default function Restores() {
  return (
    <Screen
      title="Restores"
      actions={
        <a class="button primary" href="/restore">
          New restore
        </a>
      }
    >
      <Listing
        collection="restores"
        noun={['restore', 'restores']}
        words={RESTORE_ROW}
        columns={COLUMNS}
        pick={(row) => row.restore}
        empty={
          <Empty title="No cluster reports a restore.">
            <p>
              Begin with a backup, or <a href="/snapshots">find a file</a> first.
            </p>
          </Empty>
        }
      />
      <Command text="fleet restores" />
    </Screen>
  )
}
