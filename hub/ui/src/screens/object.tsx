// What every object has: conditions, what belongs to it, what happened to it.
import { FleetView, type ActivityEntry, type Collection, type Freshness, type GetResponse, type Relation, type Resource } from '../wire/contract'
import { bytes, moment } from '../format'
import { to } from '../route'
import { useAsk } from '../state/ask'
import { ACTIVITY, BACKUP, CLUSTER, count, POLICY, REPOSITORY, RESTORE_ROW, word } from '../words'
import { Notice } from '../parts/panel'
import { Section } from '../parts/screen'
import { State } from '../parts/state'
import { Table, type Column } from '../parts/table'
import { Ago, At } from '../parts/time'

/** One object by the key of its row. */
export function useObject(collection: Collection, key: string, cluster: string) {
  return useAsk(`get ${collection} ${key}`, (stop) => FleetView.get({ collection, key }, stop), { cluster })
}

const WORDS = { clusters: CLUSTER, repositories: REPOSITORY, backups: BACKUP, policies: POLICY, restores: RESTORE_ROW, unspecified: {} }

/** Address of an object's screen. */
export function address(collection: Collection, key: string): string {
  // A repository without an id has a key with slashes, which its screen takes as they are.
  return to(collection, ...key.split('/'))
}

/** What is shown of a silent cluster is old. */
export function Silent({ cluster, freshness }: { cluster: string; freshness: Freshness | undefined }) {
  if (!freshness?.stale) return null
  return (
    <Notice tone="unknown">
      Cluster {cluster} is silent since <At at={freshness.lastHeard} />: this is what was known last.
    </Notice>
  )
}

export function Around({ of }: { of: GetResponse }) {
  return (
    <>
      <Relations of={of.relations} all={of.related} />
      <Events of={of.events} />
      <Conditions of={of.resources} />
    </>
  )
}

function Relations({ of, all }: { of: Relation[]; all: number }) {
  if (of.length === 0) return null
  return (
    <Section title="Belongs together" aside={all > of.length && <span class="muted small">the nearest {of.length} of {all}</span>}>
      <ul class="lines">
        {of.map((relation) => (
          <li key={`${relation.collection} ${relation.key}`} data-row>
            <span class="kind muted">{relation.what}</span>
            <a href={address(relation.collection, relation.key)}>{relation.name}</a>
            <State of={word(WORDS[relation.collection], relation.state)} />
          </li>
        ))}
      </ul>
    </Section>
  )
}

const EVENTS: Column<ActivityEntry>[] = [
  { name: 'What', short: true, cell: (of) => <Entry of={of} />, text: (of) => of.what },
  {
    name: 'Result',
    cell: (of) => (
      <>
        <State of={word(ACTIVITY, of.result)} />
        {of.text && <p class="reason muted">{of.text}</p>}
      </>
    ),
    text: (of) => `${of.result}: ${of.text}`,
  },
  { name: 'By', short: true, wide: true, cell: (of) => of.who, text: (of) => of.who },
  { name: 'Added', figures: true, wide: true, cell: (of) => (of.bytesAdded > 0 ? bytes(of.bytesAdded) : ''), text: (of) => of.bytesAdded || '' },
  { name: 'When', cell: (of) => <Ago at={of.at} />, text: (of) => moment(of.at, true) },
]

/** What an entry is, with the way to what shows more of it. */
function Entry({ of }: { of: ActivityEntry }) {
  if (of.kind === 'operation' && of.id) return <a href={to('operations', of.id)}>{of.what}</a>
  if (of.kind === 'decision' && of.id) return <a href={`/audit?entry=${of.id}`}>{of.what}</a>
  if (of.kind === 'maintenance' && of.id.startsWith('p-')) return <a href={to('plans', of.id)}>{of.what}</a>
  return <>{of.what}</>
}

const SUBJECT: Column<ActivityEntry> = {
  name: 'Of',
  cell: (of) => <Subject of={of} />,
  text: (of) => `${of.cluster}/${of.subject}`,
}

function Subject({ of }: { of: ActivityEntry }) {
  const [namespace = '', name = ''] = of.subject.split('/')
  const screen = of.kind === 'backup' ? 'backups' : of.kind === 'restore' ? 'restores' : undefined
  return (
    <>
      {screen && name ? <a href={to(screen, of.cluster, namespace, name)}>{of.subject}</a> : of.subject}
      {of.cluster && <span class="muted"> in {of.cluster}</span>}
    </>
  )
}

/** Columns of what happened to many objects. */
export const ACTIVITY_COLUMNS = [EVENTS[0]!, SUBJECT, ...EVENTS.slice(1)]

/** Of several events of one moment each has a key of its own. */
export function eventKey(of: ActivityEntry): string {
  return [of.kind, of.at, of.cluster, of.subject, of.what, of.id].join(' ')
}

function Events({ of }: { of: ActivityEntry[] }) {
  if (of.length === 0) return null
  return (
    <Section title="What happened">
      <Table caption="What happened, newest first" columns={EVENTS} rows={of} id={eventKey} />
    </Section>
  )
}

function Conditions({ of }: { of: Resource[] }) {
  if (of.length === 0) return null
  return (
    <details>
      <summary>Conditions of {count(of.length, 'resource')}</summary>
      {of.map((resource) => (
        <div key={resource.place} class="stack">
          <h3>{resource.place}</h3>
          <Table
            caption={`Conditions of ${resource.place}`}
            columns={[
              { name: 'Condition', cell: (condition) => condition.type, text: (condition) => condition.type },
              { name: 'Status', cell: (condition) => condition.status, text: (condition) => condition.status },
              {
                name: 'Reason',
                cell: (condition) => (
                  <>
                    {condition.reason}
                    {condition.message && <p class="reason muted">{condition.message}</p>}
                  </>
                ),
                text: (condition) => condition.reason,
              },
              { name: 'Since', cell: (condition) => <Ago at={condition.lastTransition} />, text: (condition) => moment(condition.lastTransition) },
            ]}
            rows={resource.conditions}
            id={(condition) => condition.type}
          />
        </div>
      ))}
    </details>
  )
}
