// From a repository and a day to the snapshots, and to a file by its name.
import { FleetView, type RepositoryBinding, type SnapshotRow } from '../wire/contract'
import { bytes, endOf, moment, number, shell, short } from '../format'
import { go, path, query, to, withQuery } from '../route'
import { useAsk } from '../state/ask'
import { find, snapshots, type Place } from '../state/reading'
import { may } from '../state/session'
import { count } from '../words'
import { Command } from '../parts/command'
import { Export } from '../parts/export'
import { keyed } from '../parts/listing'
import { Empty, Notice, Panel } from '../parts/panel'
import { Screen, Section } from '../parts/screen'
import { Table, type Column } from '../parts/table'
import { Ago } from '../parts/time'
import { Files } from './files'
import { tagged } from './plan-document'

export function place(): Place | undefined {
  const [, cluster, namespace, name] = path.value
  return cluster && namespace && name ? { cluster, namespace, name } : undefined
}

export default function Snapshots() {
  const at = place()
  const title = at ? `Snapshots in ${at.name}` : 'Snapshots'
  return (
    <Screen title={title} up={at && ['All repositories', '/snapshots']}>
      {!may('browse') && <Notice tone="warn">Snapshots and files are listed to those who have the right to browse; an admin gives it with fleet people bind.</Notice>}
      {at ? <Of place={at} /> : <Choose />}
    </Screen>
  )
}

/** Where to read: each ResticRepository of a cluster that is connected. */
function Choose() {
  const asked = useAsk('snapshots repositories', (stop) => FleetView.list({ collection: 'repositories' }, stop), { cluster: '' })
  return (
    <Panel asked={asked}>
      {(page) => {
        const rows = keyed(page.rows, (row) => row.repository)
        if (rows.length === 0) return <Empty title="No cluster reports a repository." />
        return (
          <>
            <p class="lead">Snapshots are read through a cluster, which has the key.</p>
            {page.total > rows.length && (
              <p class="muted">
                The first {count(rows.length, 'repository', 'repositories')} of {number(page.total)}: the others are reached from <a href="/repositories">their own screens</a>.
              </p>
            )}
            <FindIn places={rows.flatMap((row) => row.bindings.filter((binding) => !binding.freshness?.stale))} />
            <ul class="cards">
              {rows.map((row) => (
                <li key={row.key}>
                  <h2>{row.name || short(row.resticId)}</h2>
                  <p class="muted">
                    {row.statistics ? `${count(row.statistics.snapshots, 'snapshot')}, ${bytes(row.statistics.storedBytes)}` : 'its figures are not known yet'}
                  </p>
                  <ul class="lines">
                    {row.bindings.map((binding) => (
                      <li key={to(binding.cluster, binding.namespace, binding.name)} data-row class={binding.freshness?.stale ? 'old' : undefined}>
                        <a href={to('snapshots', binding.cluster, binding.namespace, binding.name)}>
                          {binding.cluster}/{binding.namespace}/{binding.name}
                        </a>
                        {binding.freshness?.stale && <span class="muted"> silent: cannot be read now</span>}
                      </li>
                    ))}
                  </ul>
                </li>
              ))}
            </ul>
            <Command text="fleet repos" label="The repositories in a terminal" />
          </>
        )
      }}
    </Panel>
  )
}

/** A file as it was on some day, from here. */
function FindIn({ places }: { places: RepositoryBinding[] }) {
  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement)
    const value = (name: string) => String(form.get(name) ?? '').trim()
    const wanted = new URLSearchParams({ find: value('find'), day: value('day') })
    go(`${to('snapshots', ...value('place').split('/'))}?${wanted}`)
  }
  return (
    <form class="search" role="search" onSubmit={submit}>
      <label class="field">
        File or folder
        <input name="find" data-filter required placeholder="orders.db or *.pdf" />
      </label>
      <label class="field">
        As it was on
        <input name="day" type="date" />
      </label>
      <label class="field">
        In
        <select name="place">
          {places.map(({ cluster, namespace, name }) => (
            <option key={to(cluster, namespace, name)} value={`${cluster}/${namespace}/${name}`}>
              {cluster}/{namespace}/{name}
            </option>
          ))}
        </select>
      </label>
      <button type="submit" class="primary">
        Find
      </button>
    </form>
  )
}

/** Those that are not younger than the day of the address. */
function wanted(rows: SnapshotRow[]): SnapshotRow[] {
  const day = query('day')
  const end = (day && endOf(day)) || Infinity
  return rows.filter((row) => (row.time ?? 0) < end)
}

function Of({ place }: { place: Place }) {
  const backup = query('backup')
  const tags = backup ? [`fleet.backup=${backup}`] : []
  const name = `${place.cluster}/${place.namespace}/${place.name}`
  const asked = useAsk(`snapshots ${name} ${backup}`, (stop) => snapshots(place, tags, stop), { off: !may('browse') })
  if (!may('browse')) return null
  return (
    <>
      <Search />
      <Panel asked={asked} rows={8}>
        {(read) => {
          const rows = wanted(read.snapshots)
          const newest = rows[0]
          return (
            <>
              {query('find') && newest && <Found place={place} snapshot={newest} pattern={query('find')} />}
              {rows.length === 0 ? (
                <Empty title={query('day') ? 'No snapshot is that old.' : 'No snapshot matches.'}>
                  <a href={withQuery({ day: '', backup: '' })}>Show all snapshots</a>
                </Empty>
              ) : (
                <List place={place} rows={rows} cut={read.cut} />
              )}
            </>
          )
        }}
      </Panel>
      <Command text={`fleet snapshots list ${shell(name)}${tags.map((tag) => ` --tag ${shell(tag)}`).join('')}`} />
    </>
  )
}

function Search() {
  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement)
    const value = (name: string) => String(form.get(name) ?? '').trim()
    go(withQuery({ find: value('find'), day: value('day'), backup: value('backup') }))
  }
  return (
    <form class="search" onSubmit={submit} role="search">
      <label class="field">
        File or folder
        <input name="find" data-filter defaultValue={query('find')} placeholder="orders.db or *.pdf" />
      </label>
      <label class="field">
        As it was on
        <input name="day" type="date" defaultValue={query('day')} />
      </label>
      <label class="field">
        Of the backup
        <input name="backup" defaultValue={query('backup')} placeholder="namespace/name" />
      </label>
      <button type="submit" class="primary">
        Find
      </button>
    </form>
  )
}

function Found({ place, snapshot, pattern }: { place: Place; snapshot: SnapshotRow; pattern: string }) {
  const name = `${place.cluster}/${place.namespace}/${place.name}`
  const asked = useAsk(`find ${name} ${snapshot.id} ${pattern}`, (stop) => find(place, snapshot.id, pattern, stop), { once: true })
  return (
    <Section title={`Found in the snapshot of ${moment(snapshot.time)}`}>
      <Panel asked={asked}>{(read) => (read.files.length === 0 ? <Empty title={`Nothing in it is called ${pattern}.`} /> : <Files place={place} snapshot={snapshot} files={read.files} cut={read.cut} whole />)}</Panel>
    </Section>
  )
}

function List({ place, rows, cut }: { place: Place; rows: SnapshotRow[]; cut: boolean }) {
  const backup = query('backup')
  const columns: Column<SnapshotRow>[] = [
    {
      name: 'Snapshot',
      cell: (row) => (
        <a data-main href={`${to('snapshots', place.cluster, place.namespace, place.name, row.id)}${backup ? `?backup=${encodeURIComponent(backup)}` : ''}`}>
          {short(row.id)}
        </a>
      ),
      text: (row) => row.id,
    },
    { name: 'Time', cell: (row) => <>{moment(row.time)} <span class="muted small">(<Ago at={row.time} />)</span></>, text: (row) => moment(row.time, true) },
    { name: 'Backup', cell: (row) => tagged(row.tags, 'fleet.backup') ?? row.paths.join(', '), text: (row) => tagged(row.tags, 'fleet.backup') ?? row.paths.join(' ') },
    { name: 'Cluster', cell: (row) => tagged(row.tags, 'fleet.cluster') ?? row.host, text: (row) => tagged(row.tags, 'fleet.cluster') ?? row.host },
    { name: 'Size', figures: true, cell: (row) => (row.bytes ? bytes(row.bytes) : '–'), text: (row) => row.bytes || '' },
    { name: 'Files', figures: true, wide: true, cell: (row) => (row.files ? number(row.files) : '–'), text: (row) => row.files || '' },
  ]
  return (
    <>
      <p class="total small muted" role="status">
        {count(rows.length, 'snapshot')}, newest first{cut && '; older ones are left out'}
      </p>
      <Table caption="Snapshots, newest first" columns={columns} rows={rows} id={(row) => row.id} />
      <div class="under">
        <span />
        <Export name="snapshots" columns={columns} all={async () => ({ rows, cut })} />
      </div>
    </>
  )
}
