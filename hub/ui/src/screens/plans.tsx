// Retention plans: what waits for a person, and what was decided.
import { FleetView, type Plan } from '../wire/contract'
import { moment, number, short } from '../format'
import { to } from '../route'
import { PLAN, word } from '../words'
import { Command } from '../parts/command'
import { Log } from '../parts/listing'
import { Empty } from '../parts/panel'
import { Screen } from '../parts/screen'
import { State } from '../parts/state'
import type { Column } from '../parts/table'
import { Ago } from '../parts/time'

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
  return (
    <Screen title="Plans">
      <p class="lead">A plan names every snapshot that a run of retention removes. One that is over the guard waits until a person approves it.</p>
      <Log
        name="plans"
        caption="Plans, newest first"
        about="plans"
        read={async (place, stop) => {
          const { asOf, plans, nextBefore } = await FleetView.plans(place, stop)
          return { asOf, rows: plans, next: nextBefore }
        }}
        every={EVERY}
        watched
        columns={COLUMNS}
        id={(plan) => plan.id}
        empty={
          <Empty title="No run of retention has made a plan yet.">
            <p>A GlobalRetentionPolicy makes one at each run. To see what it would remove: open the policy, or</p>
            <Command text="fleet retention preview CLUSTER/NAMESPACE/NAME" label="In a terminal" />
          </Empty>
        }
      />
      <Command text="fleet plan list" />
    </Screen>
  )
}
