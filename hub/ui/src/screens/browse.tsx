// Folders and files of one snapshot.
import type { SnapshotRow } from '../wire/contract'
import { moment, shell, short } from '../format'
import { go, path, query, to, withQuery } from '../route'
import { useAsk } from '../state/ask'
import { find, folder, type Place, type Read } from '../state/reading'
import { Command } from '../parts/command'
import { Facts } from '../parts/facts'
import { Empty, Panel } from '../parts/panel'
import { Screen } from '../parts/screen'
import { At } from '../parts/time'
import { Files } from './files'
import { place } from './snapshots'

export default function Browse() {
  const at = place() ?? { cluster: '', namespace: '', name: '' }
  const id = path.value[4] ?? ''
  const name = `${at.cluster}/${at.namespace}/${at.name}`
  const backup = query('backup')
  const up = `${to('snapshots', at.cluster, at.namespace, at.name)}${backup ? `?backup=${encodeURIComponent(backup)}` : ''}`
  const pattern = query('find')
  const where = query('path') || '/'
  // A snapshot never changes: what was read once is not read again.
  const asked = useAsk(pattern ? `find ${name} ${id} ${pattern}` : `folder ${name} ${id} ${where}`, (stop) => (pattern ? find(at, id, pattern, stop) : folder(at, id, where, stop)), { once: true })
  return (
    <Screen title={`Snapshot ${short(id)}`} up={[`Snapshots in ${at.name}`, up]}>
      <Panel asked={asked} rows={8}>{(read) => <Contents read={read} at={at} id={id} where={where} pattern={pattern} />}</Panel>
      <Command text={pattern ? `fleet snapshots find ${shell(name)} ${short(id)} ${shell(pattern)}` : `fleet snapshots ls ${shell(name)} ${short(id)} ${shell(where)}`} />
    </Screen>
  )
}

function Contents({ read, at, id, where, pattern }: { read: Read; at: Place; id: string; where: string; pattern: string }) {
  const snapshot: SnapshotRow = read.snapshots[0] ?? { id, host: '', tags: [], paths: [], bytes: 0, files: 0 }
  return (
    <>
      <Facts
        of={[
          ['Made', <At at={snapshot.time} />],
          ['Host', snapshot.host],
          ['Paths', snapshot.paths.join(', ')],
          ['Tags', snapshot.tags.join(', ')],
        ]}
      />
      <Search pattern={pattern} />
      {!pattern && <Crumbs path={where} />}
      {read.files.length === 0 ? (
        <Empty title={pattern ? `Nothing in it is called ${pattern}.` : 'This folder is empty.'} />
      ) : (
        <Files place={at} snapshot={snapshot} files={read.files} cut={read.cut} whole={Boolean(pattern)} />
      )}
      <p class="small muted">Snapshot of {moment(snapshot.time, true)}</p>
    </>
  )
}

function Search({ pattern }: { pattern: string }) {
  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement)
    go(withQuery({ find: String(form.get('find') ?? '').trim() }))
  }
  return (
    <form class="search" role="search" onSubmit={submit}>
      <label class="field">
        File or folder in this snapshot
        <input name="find" data-filter defaultValue={pattern} placeholder="orders.db or *.pdf" />
      </label>
      <button type="submit">Find</button>
      {pattern && <a href={withQuery({ find: '' })}>Show folders</a>}
    </form>
  )
}

function Crumbs({ path }: { path: string }) {
  const parts = path.split('/').filter(Boolean)
  return (
    <nav class="crumbs" aria-label="Folder">
      <a href={withQuery({ path: '' })}>/</a>
      {parts.map((part, n) => {
        const whole = `/${parts.slice(0, n + 1).join('/')}`
        return (
          <span key={whole}>
            {n > 0 && ' / '}
            {n === parts.length - 1 ? <span aria-current="page">{part}</span> : <a href={withQuery({ path: whole })}>{part}</a>}
          </span>
        )
      })}
    </nav>
  )
}
