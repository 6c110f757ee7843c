// Retention plans: what waits for a person, and what was decided.
import { FleetView, type Plan } from '../wire/contract'
import { moment, number, short } from '../format'
import { query, to } from '../route'
import { useAsk } from '../state/ask'
import { PLAN, word } from '../words'
import { Command } from '../parts/command'
import { Export } from '../parts/export'
import { Pages } from '../parts/listing'
import { Empty, Panel } from '../parts/panel'
import { Screen } from '../parts/screen'
import { State } from '../parts/state'
import { Table, type Column } from '../parts/table'
import { Ago } from '../parts/time'

const PAGE = 50
export const EVERY = 10_000

const COLUMNS: Column<Plan>[] = [
  { name: 'Plan', cell: (plan) => <a data-main data-id href={to('plans', plan.id)}>{plan.id}</a>, text: (plan) => plan.id },
  { name: 'State', cell: (plan) => <State of={word(PLAN, plan.state)} />, text: (plan) => plan.state },
  { name: 'Repository', cell: (plan) => <a href={to('repositories', plan.resticId)}>{plan.repository || short(plan.resticId)}</a>, text: (plan) => plan.repository },
  {
    name: 'Removes',
    figures: true,
    cell: (plan) => (plan.outcome ? `${number(plan.outcome.planned)} of ${number(plan.outcome.snapshots)}` : '–'),
    text: (plan) => plan.outcome?.planned ?? '',
  },
  { name: 'Made', cell: (plan) => <Ago at={plan.made} />, text: (plan) => moment(plan.made) },
  { name: 'By', wide: true, cell: (plan) => `${plan.cluster} ${plan.subject}`, text: (plan) => `${plan.cluster} ${plan.subject}` },
  {
    name: 'Decided',
    wide: true,
    cell: (plan) => plan.decidedBy && <>by {plan.decidedBy} <Ago at={plan.decided} /></>,
    text: (plan) => plan.decidedBy,
  },
]

export default function Plans() {
  const before = query('after')
  const asked = useAsk(`plans ${before}`, (stop) => FleetView.plans({ limit: PAGE, before }, stop), { every: EVERY, cluster: '' })
  return (
    <Screen title="Plans">
      <p class="lead">A plan names every snapshot that a run of retention removes. One that is over the guard waits until a person approves it.</p>
      <Panel asked={asked}>
        {({ plans, nextBefore }) =>
          plans.length === 0 ? (
            <Empty title="No run of retention has made a plan yet.">
              <p>A GlobalRetentionPolicy makes one at each run. To see what it would remove: open the repository, or</p>
              <Command text="fleet retention preview CLUSTER/NAMESPACE/NAME" label="In a terminal" />
            </Empty>
          ) : (
            <>
              <Table caption="Plans, newest first" columns={COLUMNS} rows={plans} id={(plan) => plan.id} />
              <div class="under">
                <Pages next={nextBefore} />
                <Export name="plans" columns={COLUMNS} all={async () => plans} />
              </div>
            </>
          )
        }
      </Panel>
      <Command text="fleet plan list" />
    </Screen>
  )
}
