// What runs, how long still, and what ran last.
import { FleetControl, FleetView, type ActivityKind, type BackupRow, type Operation } from '../wire/contract'
import { moment, number, short } from '../format'
import { go, query, to, withQuery } from '../route'
import { useAsk } from '../state/ask'
import { BACKUP, OPERATION, word } from '../words'
import { Command } from '../parts/command'
import { Log } from '../parts/listing'
import { Empty, Panel } from '../parts/panel'
import { Progress } from '../parts/progress'
import { Screen, Section } from '../parts/screen'
import { State } from '../parts/state'
import { Table, type Column } from '../parts/table'
import { Ago } from '../parts/time'
import { EVERY, LockDetails } from './lock'
import { ACTIVITY_COLUMNS, eventKey } from './object'

const PAGE = 50

export default function Activity() {
  return (
    <Screen title="Activity">
      <Running />
      <Maintenance />
      <Open />
      <Happened />
      <Command text="fleet operations list" />
    </Screen>
  )
}

function Running() {
  const asked = useAsk('running', (stop) => FleetView.list({ collection: 'backups', filter: { states: ['running'] } }, stop), { cluster: '', every: EVERY })
  return (
    <Section title="Backups that run">
      <Panel asked={asked} rows={2}>{(page) => (page.rows.length === 0 ? <p class="muted">None.</p> : <><ul class="lines">{page.rows.map((row) => row.backup && <Run key={row.key} of={row.backup} />)}</ul>{page.total > page.rows.length && <p class="muted"><a href="/backups?state=running">All {number(page.total)}</a></p>}</>)}</Panel>
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

const OPERATIONS: Column<Operation>[] = [
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

/** What people asked for and what has not ended. */
function Open() {
  const asked = useAsk('operations open', (stop) => FleetControl.listOperations({ open: true, limit: PAGE }, stop), { every: EVERY })
  return (
    <Section title="Operations that are open">
      <Panel asked={asked} rows={2}>{({ operations, nextPage }) => (operations.length === 0 ? <p class="muted">None.</p> : <><Table caption="Operations, newest first" columns={OPERATIONS} rows={operations} id={(of) => of.id} />{nextPage && <p class="muted">There are more: fleet operations list has them.</p>}</>)}</Panel>
    </Section>
  )
}

const KINDS: [ActivityKind, string][] = [
  ['backup', 'Backups'],
  ['restore', 'Restores'],
  ['maintenance', 'Maintenance'],
  ['operation', 'Operations'],
  ['decision', 'Decisions'],
]

/** What happened, by kind; kind and page are in the address. */
function Happened() {
  const kinds = query('kind').split(',').filter((kind) => KINDS.some(([known]) => known === kind)) as ActivityKind[]
  const request = { kinds, clusters: query('cluster').split(',').filter(Boolean) }
  const toggle = (kind: ActivityKind) => {
    const next = kinds.includes(kind) ? kinds.filter((other) => other !== kind) : [...kinds, kind]
    go(withQuery({ kind: next.join(','), after: '' }), true)
  }
  return (
    <Section title="What happened" aside={<a href="/audit">Audit</a>}>
      <div class="chips" role="group" aria-label="Kinds">
        {KINDS.map(([kind, name]) => (
          <button type="button" key={kind} class="chip" aria-pressed={kinds.includes(kind)} onClick={() => toggle(kind)}>
            {name}
          </button>
        ))}
      </div>
      <Log
        name="activity"
        caption="What happened, newest first"
        about={`activity ${JSON.stringify(request)}`}
        read={async (place, stop) => {
          const { asOf, entries, nextBefore } = await FleetView.activity({ ...request, ...place }, stop)
          return { asOf, rows: entries, next: nextBefore }
        }}
        every={15_000}
        watched
        ended
        columns={ACTIVITY_COLUMNS}
        id={eventKey}
        empty={<Empty title="Nothing of this kind has happened yet." />}
      />
    </Section>
  )
}
