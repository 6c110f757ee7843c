// What runs, how long still, and what ran last.
import { FleetControl, FleetView, type AuditEntry, type BackupRow, type Operation } from '../wire/contract'
import { bytes, moment, number, short, span } from '../format'
import { to } from '../route'
import { useAsk } from '../state/ask'
import { now } from '../state/clock'
import { BACKUP, OPERATION, OUTCOME, word } from '../words'
import { Command } from '../parts/command'
import { Empty, Panel } from '../parts/panel'
import { Progress } from '../parts/progress'
import { Screen, Section } from '../parts/screen'
import { State } from '../parts/state'
import { Table, type Column } from '../parts/table'
import { Ago } from '../parts/time'
import { EVERY, LockDetails } from './lock'

const LAST = 25

export default function Activity() {
  return (
    <Screen title="Activity">
      <Running />
      <Maintenance />
      <Operations />
      <Runs />
      <Command text="fleet operations list" />
    </Screen>
  )
}

function Running() {
  const asked = useAsk('running', (stop) => FleetView.list({ collection: 'backups', filter: { states: ['running'] } }, stop), { cluster: '', every: EVERY })
  return (
    <Section title="Backups that run">
      <Panel asked={asked} rows={2}>{(page) => (page.rows.length === 0 ? <p class="muted">None.</p> : <ul class="lines">{page.rows.map((row) => row.backup && <Run key={row.key} of={row.backup} />)}</ul>)}</Panel>
    </Section>
  )
}

function Run({ of }: { of: BackupRow }) {
  return (
    <li data-row>
      <State of={word(BACKUP, of.state)} stale={of.freshness?.stale} />
      <a href={to('backups', of.cluster, of.namespace, of.name)}>
        {of.cluster}/{of.namespace}/{of.name}
      </a>
      {of.backup?.progress ? <Progress of={of.backup.progress} what={`Progress of ${of.name}`} /> : <span class="muted">began <Ago at={of.backup?.lastRun?.started} never="just now" /></span>}
    </li>
  )
}

function Maintenance() {
  const asked = useAsk('locks ', (stop) => FleetView.locks({}, stop), { every: EVERY, cluster: '' })
  return (
    <Section title="Maintenance" aside={<a href="/locks">Locks</a>}>
      <Panel asked={asked} rows={2}>
        {({ locks }) => {
          const busy = locks.filter((lock) => lock.state !== 'free' || lock.waiters.length > 0)
          if (busy.length === 0) return <p class="muted">None runs, and none waits.</p>
          return (
            <>
              {busy.map((lock) => (
                <div key={lock.resticId}>
                  <h3>{lock.repository || short(lock.resticId)}</h3>
                  <LockDetails lock={lock} />
                </div>
              ))}
            </>
          )
        }}
      </Panel>
    </Section>
  )
}

export const OPERATIONS: Column<Operation>[] = [
  { name: 'Operation', cell: (of) => <a data-main href={to('operations', of.id)}>{of.what}</a>, text: (of) => of.what },
  { name: 'Of', cell: (of) => <>{of.subject} <span class="muted">in {of.cluster}</span></>, text: (of) => `${of.cluster}/${of.subject}` },
  {
    name: 'State',
    cell: (of) => (
      <>
        <State of={word(OPERATION, of.state)} />
        {of.text && <p class="reason muted">{of.text}</p>}
      </>
    ),
    text: (of) => `${of.state}: ${of.text}`,
  },
  { name: 'Asked by', wide: true, cell: (of) => of.who, text: (of) => of.who },
  { name: 'Asked', cell: (of) => <Ago at={of.created} />, text: (of) => moment(of.created) },
]

function Operations() {
  const asked = useAsk('operations', (stop) => FleetControl.listOperations({ limit: LAST }, stop), { every: EVERY })
  return (
    <Section title="What people asked for">
      <Panel asked={asked}>
        {({ operations }) =>
          operations.length === 0 ? (
            <Empty title="Nobody has asked for anything yet.">
              <p>Runs, previews and restores that are started here or with fleet are listed here until their end.</p>
            </Empty>
          ) : (
            <Table caption="Operations, newest first" columns={OPERATIONS} rows={operations} id={(of) => of.id} />
          )
        }
      </Panel>
    </Section>
  )
}

const RUNS: Column<AuditEntry>[] = [
  { name: 'Run', cell: (run) => <>{run.subject} <span class="muted">in {run.cluster}</span></>, text: (run) => `${run.cluster} ${run.subject}` },
  { name: 'Repository', cell: (run) => <a href={to('repositories', run.resticId)}>{run.repository || short(run.resticId)}</a>, text: (run) => run.repository },
  {
    name: 'Result',
    cell: (run) => (
      <>
        {run.outcome ? <State of={word(OUTCOME, run.outcome.result)} /> : run.ended ? <State of={['unknown', 'Not reported']} /> : <State of={['run', 'In progress or unknown']} />}
        {run.outcome && <p class="reason muted">{said(run)}</p>}
      </>
    ),
    text: (run) => run.outcome?.result ?? '',
  },
  { name: 'Plan', wide: true, cell: (run) => run.plan && <a data-id href={to('plans', run.plan)}>{run.plan}</a>, text: (run) => run.plan },
  { name: 'Began', cell: (run) => <Ago at={run.granted} />, text: (run) => moment(run.granted) },
  { name: 'Took', figures: true, wide: true, cell: (run) => (run.granted === undefined ? '–' : span((run.ended ?? now.value) - run.granted)), text: (run) => (run.granted !== undefined && run.ended !== undefined ? Math.round((run.ended - run.granted) / 1000) : '') },
]

function said({ outcome }: AuditEntry): string {
  if (!outcome) return ''
  if (outcome.message) return outcome.message
  const freed = outcome.bytesBefore - outcome.bytesAfter
  const parts = [outcome.removed > 0 && `${number(outcome.removed)} of ${number(outcome.snapshots)} snapshots removed`, outcome.pruned && freed > 0 && `${bytes(freed)} freed`]
  return parts.filter(Boolean).join(', ')
}

function Runs() {
  const asked = useAsk('runs', (stop) => FleetView.audit({ limit: 100 }, stop), { every: 15_000 })
  return (
    <Section title="Maintenance that ran" aside={<a href="/audit">Audit</a>}>
      <Panel asked={asked}>{({ entries }) => (entries.length === 0 ? <Empty title="No maintenance has run yet." /> : <Table caption="Runs, newest first" columns={RUNS} rows={entries.slice(0, LAST)} id={(run) => `${run.resticId} ${run.token}`} />)}</Panel>
    </Section>
  )
}
