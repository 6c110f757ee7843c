// Restores that people have asked for, and what became of them.
import { FleetControl } from '../wire/contract'
import { useAsk } from '../state/ask'
import { Command } from '../parts/command'
import { Empty, Panel } from '../parts/panel'
import { Screen } from '../parts/screen'
import { Table } from '../parts/table'
import { OPERATIONS } from './activity'
import { EVERY } from './lock'

export default function Restores() {
  const asked = useAsk('restores', (stop) => FleetControl.listOperations({ limit: 200 }, stop), { every: EVERY })
  return (
    <Screen title="Restores" actions={<a class="button primary" href="/restore">New restore</a>}>
      <Panel asked={asked}>
        {({ operations }) => {
          const restores = operations.filter((of) => of.what === 'create restore')
          if (restores.length === 0) {
            return (
              <Empty title="Nobody has asked for a restore yet.">
                <p>Begin with a backup, or find a file first:</p>
                <p>
                  <a href="/snapshots">Browse snapshots</a>
                </p>
              </Empty>
            )
          }
          return <Table caption="Restores, newest first" columns={OPERATIONS} rows={restores} id={(of) => of.id} />
        }}
      </Panel>
      <Command text="fleet operations list" />
    </Screen>
  )
}
