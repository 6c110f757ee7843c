// Files of a snapshot: open a folder, fetch a file, choose what is restored.
import { useState } from 'preact/hooks'
import type { FileRow, SnapshotRow } from '../wire/contract'
import { bytes, moment } from '../format'
import { query, to } from '../route'
import { fetchFile, FILE_MAX, type Place } from '../state/reading'
import { count } from '../words'
import { save } from '../parts/export'
import { Table, type Column } from '../parts/table'
import { tagged } from './plan-document'

/** Rows that are shown at first, and more at a time. */
const STEP = 500

interface Props {
  place: Place
  snapshot: SnapshotRow
  files: FileRow[]
  cut: boolean
  /** Shows whole paths: the rows are of several folders. */
  whole?: boolean
}

/** Path of a file as a restore names it: relative to the data, which snapshots of the fleet have below their one path. */
function relative(snapshot: SnapshotRow, path: string): string {
  const root = snapshot.paths[0]
  const own = tagged(snapshot.tags, 'fleet.backup') !== undefined
  return own && root && path.startsWith(`${root}/`) ? path.slice(root.length) : path
}

/** Where the restore of these paths is prepared. */
function restore(place: Place, snapshot: SnapshotRow, paths: string[]): string {
  const url = new URLSearchParams({ snapshot: snapshot.id })
  const backup = tagged(snapshot.tags, 'fleet.backup') ?? query('backup')
  const cluster = tagged(snapshot.tags, 'fleet.cluster') ?? place.cluster
  if (backup) url.set('backup', `${cluster}/${backup}`)
  for (const path of paths) url.append('path', relative(snapshot, path))
  return `/restore?${url}`
}

export function Files({ place, snapshot, files, cut, whole }: Props) {
  const [shown, setShown] = useState(STEP)
  const [chosen, setChosen] = useState<string[]>([])
  const [message, setMessage] = useState('')
  const toggle = (path: string) => setChosen((before) => (before.includes(path) ? before.filter((other) => other !== path) : [...before, path]))
  const download = async (file: FileRow) => {
    const name = file.path.split('/').at(-1) ?? 'file'
    setMessage(`Reading ${name}…`)
    try {
      const parts = await fetchFile(place, snapshot.id, file.path, (size) => setMessage(`Reading ${name}: ${bytes(size)} of ${bytes(file.size)}`), new AbortController().signal)
      save(name, parts, 'application/octet-stream')
      setMessage(`${name} is saved.`)
    } catch (error) {
      setMessage(`${name} was not read: ${(error as Error).message}`)
    }
  }
  const sorted = whole ? files : [...files].sort((a, b) => Number(b.type === 'dir') - Number(a.type === 'dir') || a.path.localeCompare(b.path))
  const columns: Column<FileRow>[] = [
    {
      name: 'Name',
      cell: (file) => (
        <span class="file">
          <input type="checkbox" aria-label={`Restore ${file.path}`} checked={chosen.includes(file.path)} onChange={() => toggle(file.path)} />
          <Name file={file} place={place} snapshot={snapshot} whole={whole} />
        </span>
      ),
      text: (file) => file.path,
    },
    { name: 'Size', figures: true, cell: (file) => (file.type === 'file' ? bytes(file.size) : ''), text: (file) => file.size },
    { name: 'Changed', cell: (file) => moment(file.modified), text: (file) => moment(file.modified, true) },
    {
      name: 'Content',
      cell: (file) =>
        file.type === 'file' && (
          <button type="button" class="quiet" disabled={file.size > FILE_MAX} title={file.size > FILE_MAX ? 'Larger than 256 MiB: fleet snapshots get' : undefined} onClick={() => download(file)}>
            Download<span class="hidden"> {file.path}</span>
          </button>
        ),
      text: (file) => file.type,
    },
  ]
  return (
    <>
      <div class="under">
        <span class="muted small" role="status">
          {count(files.length, 'entry', 'entries')}
          {cut && '; more are left out: narrow the name'}
          {message && ` · ${message}`}
        </span>
        <a class="button" href={restore(place, snapshot, chosen)}>
          {chosen.length === 0 ? 'Restore this snapshot' : `Restore ${count(chosen.length, 'entry', 'entries')}`}
        </a>
      </div>
      <Table caption="Files" columns={columns} rows={sorted.slice(0, shown)} id={(file) => file.path} />
      {shown < sorted.length && (
        <button type="button" onClick={() => setShown(shown + STEP)}>
          Show {Math.min(STEP, sorted.length - shown)} more of {sorted.length}
        </button>
      )}
    </>
  )
}

function Name({ file, place, snapshot, whole }: { file: FileRow; place: Place; snapshot: SnapshotRow; whole: boolean | undefined }) {
  const name = whole ? file.path : (file.path.split('/').at(-1) ?? file.path)
  if (file.type !== 'dir') return <span>{name}{file.type === 'file' ? '' : <span class="muted"> ({file.type})</span>}</span>
  const backup = query('backup')
  const url = new URLSearchParams({ ...(backup && { backup }), path: file.path })
  return (
    <a data-main href={`${to('snapshots', place.cluster, place.namespace, place.name, snapshot.id)}?${url}`}>
      {name}/
    </a>
  )
}
