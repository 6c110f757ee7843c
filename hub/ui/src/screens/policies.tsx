// Retention policies: which run, which wait for a person, and when they are due.
import type { PolicyRow } from '../wire/contract'
import { moment } from '../format'
import { POLICY } from '../words'
import { named, repository, told } from '../parts/columns'
import { Command } from '../parts/command'
import { Listing } from '../parts/listing'
import { Empty } from '../parts/panel'
import { Screen } from '../parts/screen'
import type { Column } from '../parts/table'
import { Ago } from '../parts/time'

const COLUMNS: Column<PolicyRow>[] = [
  named('Policy', 'policies'),
  told(POLICY),
  { name: 'Last run', sort: 'last', cell: (row) => <Ago at={row.policy?.lastRun} />, text: (row) => moment(row.policy?.lastRun) },
  { name: 'Next run', cell: (row) => <Ago at={row.nextRun} never="–" />, text: (row) => moment(row.nextRun) },
  repository((row) => row.policy),
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
        empty={
          <Empty title="No cluster reports a GlobalRetentionPolicy.">
            <p>Without one every snapshot is kept.</p>
          </Empty>
        }
      />
      <Command text="fleet policies" />
    </Screen>
  )
}
