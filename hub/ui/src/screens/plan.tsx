// One plan: what goes, what stays and why, and the decision about it.
import { useEffect, useState } from 'preact/hooks'
import { FleetView, type Plan } from '../wire/contract'
import { Refused } from '../wire/grpc'
import { moment, number, shell, short } from '../format'
import { path, to } from '../route'
import { refresh, useAsk } from '../state/ask'
import { person } from '../state/session'
import { count, OUTCOME, PLAN, word } from '../words'
import { Act } from '../parts/act'
import { Command } from '../parts/command'
import { Export } from '../parts/export'
import { Facts } from '../parts/facts'
import { Notice, Panel } from '../parts/panel'
import { Screen, Section } from '../parts/screen'
import { State } from '../parts/state'
import { Table, type Column } from '../parts/table'
import { At } from '../parts/time'
import { hash, read, tagged, type Group, type PlanDocument, type Removal } from './plan-document'
import { EVERY } from './plans'

/** Snapshots that are shown at first. */
const SHOWN = 50

async function ask(id: string, stop: AbortSignal): Promise<{ asOf: number | undefined; plan: Plan }> {
  const { asOf, plans } = await FleetView.plans({ plan: id }, stop)
  const plan = plans.find((plan) => plan.id === id) ?? plans[0]
  if (!plan) throw new Refused('not-found', `there is no plan ${id}, or it is not all in your scope`)
  return { asOf, plan }
}

export default function PlanScreen() {
  const [, id = ''] = path.value
  const asked = useAsk(`plan ${id}`, (stop) => ask(id, stop), { every: EVERY })
  return (
    <Screen title={`Plan ${id}`} up={['Plans', '/plans']}>
      <Panel asked={asked} rows={8}>{({ plan }) => <Details plan={plan} />}</Panel>
      <Command text={`fleet plan show ${shell(id)}`} />
    </Screen>
  )
}

function Details({ plan }: { plan: Plan }) {
  const document = plan.document ? read(plan.document) : undefined
  const fits = useFits(plan, document)
  return (
    <>
      <div class="headline">
        <State of={word(PLAN, plan.state)} />
        <p>
          {document
            ? `removes ${count(document.remove.length, 'snapshot')} of ${number(document.snapshots)}; ${number(document.snapshots - document.remove.length)} stay`
            : plan.outcome && `removes ${number(plan.outcome.planned)} of ${number(plan.outcome.snapshots)} snapshots`}
        </p>
      </div>
      {document?.guards.map((guard) => (
        <Notice key={guard.reason} tone="warn">
          <strong>{guard.reason}</strong>: {guard.message}
        </Notice>
      ))}
      {fits === false && <Notice tone="bad">The snapshots below do not give the hash of the plan: it must not be approved. Report this.</Notice>}
      {plan.documentMissing && <Notice tone="warn">The list of snapshots cannot be shown: {plan.documentMissing}</Notice>}
      {document?.shortened && <Notice tone="warn">The plan was too long to be kept whole: ids are complete, descriptions are not.</Notice>}
      <Facts
        of={[
          ['Repository', <a href={to('repositories', plan.resticId)}>{plan.repository || short(plan.resticId)}</a>],
          ['Made', <At at={plan.made} />],
          ['By', `${plan.cluster} ${plan.subject}`],
          ['Decided', plan.decidedBy && <>by {plan.decidedBy}, <At at={plan.decided} /></>],
          ['Hash', <><code>{plan.hash.slice(0, 12)}</code> {fits && <span class="muted">matches the snapshots below</span>}</>],
          ['Result', plan.outcome?.result && <State of={word(OUTCOME, plan.outcome.result)} />],
          ['Message', plan.outcome?.message],
        ]}
      />
      <Decision plan={plan} document={document} fits={fits} />
      {document && <Contents document={document} />}
    </>
  )
}

/** Whether what is shown is what an approval names; undefined while that is not known. */
function useFits(plan: Plan, document: PlanDocument | undefined): boolean | undefined {
  const [known, setKnown] = useState<{ text: string; hash: string }>()
  useEffect(() => {
    if (document) void hash(document).then((hash) => setKnown({ text: plan.document, hash }))
  }, [plan.document])
  // A hash of another document says nothing of this one.
  if (!document || known?.text !== plan.document) return undefined
  return known.hash === plan.hash && document.resticId === plan.resticId
}

/** Decides; the answer is the number of the entry in the audit. */
async function decide(plan: Plan, approve: boolean): Promise<number | undefined> {
  await FleetView.decidePlan({ plan: plan.id, hash: plan.hash, approve })
  void refresh(`plan ${plan.id}`, (stop) => ask(plan.id, stop))
  try {
    const audit = await FleetView.audit({ who: person.value?.name ?? '', what: approve ? 'approve-plan' : 'reject-plan', limit: 5 })
    return audit.decisions.find((decision) => decision.subject.includes(plan.id))?.id
  } catch {
    // It is decided all the same.
    return undefined
  }
}

interface Receipt {
  text: string
  entry: number | undefined
}

const APPROVED = 'Approved. A run starts when the lock is free, plans again, and removes nothing if a listed snapshot has changed.'
const REJECTED = 'Rejected. Nothing is removed.'

function Decision({ plan, document, fits }: { plan: Plan; document: PlanDocument | undefined; fits: boolean | undefined }) {
  const [receipt, setReceipt] = useState<Receipt>()
  const run = (approve: boolean) => async () => setReceipt({ text: approve ? APPROVED : REJECTED, entry: await decide(plan, approve) })
  return (
    <>
      {receipt && (
        <div role="status">
          <Notice tone="ok">
            <strong>{receipt.text}</strong>
            {receipt.entry !== undefined && (
              <p>
                Receipt: entry <a href={`/audit?entry=${receipt.entry}`}>{receipt.entry}</a> of the audit
              </p>
            )}
          </Notice>
        </div>
      )}
      {['waiting', 'preview', 'rejected'].includes(plan.state) && <Choice plan={plan} document={document} fits={fits} run={run} />}
    </>
  )
}

interface ChoiceProps {
  plan: Plan
  document: PlanDocument | undefined
  fits: boolean | undefined
  run: (approve: boolean) => () => Promise<void>
}

function Choice({ plan, document, fits, run }: ChoiceProps) {
  const name = plan.repository || short(plan.resticId)
  const removed = document ? count(document.remove.length, 'snapshot') : `${number(plan.outcome?.planned)} snapshots`
  const off = document && fits ? undefined : 'The list of snapshots is not known, or does not fit the hash'
  return (
    <p class="buttons">
      <Act label="Approve" verb="approve" danger typed={name} off={off} title={`Approve ${plan.id}`} run={run(true)}>
        <p>
          <strong>{removed}</strong> of {name} {document?.remove.length === 1 ? 'is' : 'are'} removed for good.
        </p>
        <Command text={`fleet plan approve ${plan.id} --hash ${plan.hash.slice(0, 12)}`} />
      </Act>
      {plan.state !== 'rejected' && (
        <Act label="Reject" verb="approve" title={`Reject ${plan.id}`} run={run(false)}>
          <p>Nothing is removed. The next run makes another plan.</p>
          <Command text={`fleet plan reject ${plan.id}`} />
        </Act>
      )}
    </p>
  )
}

const GROUPS: Column<Group>[] = [
  { name: 'Backup', cell: (group) => tagged(group.tags, 'fleet.backup') ?? (group.paths.join(', ') || group.host), text: (group) => tagged(group.tags, 'fleet.backup') ?? group.paths.join(' ') },
  { name: 'Cluster', cell: (group) => tagged(group.tags, 'fleet.cluster') ?? '–', text: (group) => tagged(group.tags, 'fleet.cluster') ?? '' },
  { name: 'Keeps', figures: true, cell: (group) => number(group.keep), text: (group) => group.keep },
  { name: 'Removes', figures: true, cell: (group) => number(group.remove), text: (group) => group.remove },
  { name: 'Oldest that goes', cell: (group) => (group.oldest ? group.oldest.slice(0, 10) : '–'), text: (group) => group.oldest ?? '' },
]

const REMOVALS: Column<Removal>[] = [
  { name: 'Snapshot', cell: (removal) => <code title={removal.id}>{short(removal.id)}</code>, text: (removal) => removal.id },
  { name: 'Time', cell: (removal) => moment(removal.time ? Date.parse(removal.time) : undefined), text: (removal) => removal.time ?? '' },
  { name: 'Backup', cell: (removal) => tagged(removal.tags, 'fleet.backup') ?? (removal.paths ?? []).join(', '), text: (removal) => tagged(removal.tags, 'fleet.backup') ?? '' },
  { name: 'Cluster', cell: (removal) => tagged(removal.tags, 'fleet.cluster') ?? '–', text: (removal) => tagged(removal.tags, 'fleet.cluster') ?? '' },
  { name: 'Removed by', wide: true, cell: (removal) => (removal.by ?? []).join(', '), text: (removal) => (removal.by ?? []).join(' ') },
]

function Contents({ document }: { document: PlanDocument }) {
  return (
    <>
      {document.groups.length > 0 && (
        <Section title="Groups that lose snapshots">
          <Table caption="Groups that lose snapshots" columns={GROUPS} rows={document.groups} id={(group) => JSON.stringify([group.host, group.paths, group.tags])} />
        </Section>
      )}
      <Removals title="Snapshots that go" of={document.remove} />
      {document.previewed.length > 0 && <Removals title="Goes at the next run of policies in preview" of={document.previewed} />}
      <Remarks document={document} />
    </>
  )
}

function Removals({ title, of }: { title: string; of: Removal[] }) {
  const [all, setAll] = useState(false)
  const shown = all ? of : of.slice(0, SHOWN)
  return (
    <Section title={title} aside={of.length > 0 && <Export name="snapshots" columns={REMOVALS} all={async () => ({ rows: of })} />}>
      {of.length === 0 ? <p class="muted">None.</p> : <Table caption={title} columns={REMOVALS} rows={shown} id={(removal) => removal.id} />}
      {shown.length < of.length && (
        <button type="button" onClick={() => setAll(true)}>
          Show all {number(of.length)}
        </button>
      )}
    </Section>
  )
}

function Remarks({ document }: { document: PlanDocument }) {
  const lines = [
    ...document.keepers.map((keeper) => `${keeper.source} keeps ${count(keeper.snapshots, 'snapshot')} that another policy would remove`),
    ...document.outOfReach.map((part) => `${count(part.snapshots, 'snapshot')} of ${part.cluster ? `cluster ${part.cluster}` : 'no known cluster'} ${part.snapshots === 1 ? 'stays' : 'stay'}: no policy may remove ${part.snapshots === 1 ? 'it' : 'them'}`),
    ...document.faults.map((fault) => `${fault.source} could not be evaluated, and all that it could match is kept: ${fault.text}`),
    ...document.unmatched.map((source) => `${source} matches no snapshot`),
    ...document.policies.map((policy) => `${policy.source} took part, generation ${policy.generation}${policy.suspended ? ', suspended' : policy.preview ? ', in preview' : ''}`),
  ]
  if (lines.length === 0) return null
  return (
    <Section title="Policies, and what stays">
      <ul class="lines">
        {lines.map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
    </Section>
  )
}
