// A restore: which snapshot, which files, to where; what that means; then its progress.
import { useState } from 'preact/hooks'
import { FleetControl, FleetView } from '../wire/contract'
import { shell, short } from '../format'
import { address, query, to } from '../route'
import { useAsk } from '../state/ask'
import { Act } from '../parts/act'
import { Command } from '../parts/command'
import { Notice } from '../parts/panel'
import { Screen } from '../parts/screen'

interface Form {
  backup: string
  snapshot: string
  paths: string
  sort: 'new' | 'claim'
  claim: string
  size: string
  storageClass: string
  folder: string
}

function given(): Form {
  const backup = query('backup')
  const name = backup.split('/')[2]
  return {
    backup,
    snapshot: query('snapshot') || 'latest',
    paths: address.value.searchParams.getAll('path').join('\n'),
    sort: 'new',
    claim: name ? `${name}-restored` : '',
    size: '',
    storageClass: '',
    folder: '',
  }
}

function lines(text: string): string[] {
  return text.split('\n').map((line) => line.trim()).filter(Boolean)
}

/** The same in a terminal. */
function command(form: Form): string {
  const parts = ['fleet restore create', shell(form.backup || 'CLUSTER/NAMESPACE/NAME')]
  const flag = (name: string, value: string) => value && parts.push(`--${name} ${shell(value)}`)
  flag('snapshot', form.snapshot === 'latest' ? '' : form.snapshot)
  if (form.sort === 'new') {
    flag('new-claim', form.claim)
    flag('size', form.size)
    flag('storage-class', form.storageClass)
  } else {
    flag('claim', form.claim)
    flag('path', form.folder)
  }
  for (const path of lines(form.paths)) flag('include', path)
  return parts.join(' ')
}

/** What is missing, in one sentence. */
function missing(form: Form): string | undefined {
  if (form.backup.split('/').filter(Boolean).length !== 3) return 'Name the backup as cluster/namespace/name'
  if (!/^(latest|[0-9a-f]{4,64})$/.test(form.snapshot)) return 'The snapshot is "latest" or 4 to 64 hex digits of its id'
  if (!form.claim) return 'Name the claim that the files go to'
  return undefined
}

export default function Restore() {
  const [form, setForm] = useState(given)
  const set = (change: Partial<Form>) => setForm((before) => ({ ...before, ...change }))
  const backups = useAsk('restore backups', (stop) => FleetView.list({ collection: 'backups', sort: 'name' }, stop))
  const names = backups.data?.rows.map((row) => row.key) ?? []
  const [cluster = '', namespace = '', name = ''] = form.backup.split('/')
  const off = missing(form)
  return (
    <Screen title="Restore" up={cluster && namespace && name ? [form.backup, to('backups', cluster, namespace, name)] : ['Restores', '/restores']}>
      <form class="wizard" onSubmit={(event) => event.preventDefault()}>
        <fieldset>
          <legend>1. Snapshot</legend>
          <label class="field">
            Backup
            <input list="backups" value={form.backup} required placeholder="cluster/namespace/name" onInput={(event) => set({ backup: event.currentTarget.value })} />
          </label>
          <datalist id="backups">
            {names.map((name) => (
              <option key={name} value={name} />
            ))}
          </datalist>
          <p class="hint">The files are restored in the cluster and the namespace of this backup. For another cluster, name one of its backups that uses the same repository, and the snapshot by its id.</p>
          <label class="field">
            Snapshot
            <input value={form.snapshot} onInput={(event) => set({ snapshot: event.currentTarget.value.trim() })} />
          </label>
          <p class="hint">
            An id, or <code>latest</code>. <a href="/snapshots">Browse snapshots</a>
          </p>
        </fieldset>
        <fieldset>
          <legend>2. Files</legend>
          <label class="field">
            Only these paths, one a line
            <textarea rows={3} value={form.paths} placeholder="everything" onInput={(event) => set({ paths: event.currentTarget.value })} />
          </label>
          <p class="hint">Relative to the data of the backup. Empty restores everything.</p>
        </fieldset>
        <fieldset>
          <legend>3. Target</legend>
          <label class="choice">
            <input type="radio" name="sort" checked={form.sort === 'new'} onChange={() => set({ sort: 'new' })} /> A new claim: nothing that is there is touched
          </label>
          <label class="choice">
            <input type="radio" name="sort" checked={form.sort === 'claim'} onChange={() => set({ sort: 'claim' })} /> A claim that is there: files of the same names are overwritten
          </label>
          <label class="field">
            Name of the claim
            <input value={form.claim} onInput={(event) => set({ claim: event.currentTarget.value.trim() })} />
          </label>
          {form.sort === 'new' ? (
            <>
              <label class="field">
                Size
                <input value={form.size} placeholder="as large as the snapshot needs" onInput={(event) => set({ size: event.currentTarget.value.trim() })} />
              </label>
              <label class="field">
                Storage class
                <input value={form.storageClass} placeholder="the cluster's default" onInput={(event) => set({ storageClass: event.currentTarget.value.trim() })} />
              </label>
            </>
          ) : (
            <label class="field">
              Folder in the claim
              <input value={form.folder} placeholder="its root" onInput={(event) => set({ folder: event.currentTarget.value })} />
            </label>
          )}
        </fieldset>
        <fieldset>
          <legend>4. Summary</legend>
          {off ? <p class="muted">{off}.</p> : <Summary form={form} />}
          <Command text={command(form)} />
          <Act label="Restore" primary verb="restore" off={off} title={`Restore ${form.backup}`} run={(id) => create(form, id)}>
            <Summary form={form} />
          </Act>
        </fieldset>
      </form>
    </Screen>
  )
}

function Summary({ form }: { form: Form }) {
  const [cluster, namespace] = form.backup.split('/')
  const paths = lines(form.paths)
  return (
    <>
      <p>
        {paths.length === 0 ? 'All files' : paths.join(', ')} of {form.snapshot === 'latest' ? 'the latest snapshot' : `snapshot ${short(form.snapshot)}`} of {form.backup} go into {form.sort === 'new' ? 'the new claim' : 'the claim'} <strong>{form.claim}</strong> in namespace {namespace} of cluster {cluster}.
      </p>
      {form.sort === 'claim' && <Notice tone="warn">Files of the same names in {form.claim} are overwritten. Other files stay.</Notice>}
    </>
  )
}

function create(form: Form, requestId: string) {
  const [cluster = '', namespace = '', name = ''] = form.backup.split('/')
  const target = form.sort === 'new' ? { newClaim: form.claim, size: form.size, storageClass: form.storageClass } : { claim: form.claim, path: form.folder }
  const command = { backup: { namespace, name }, snapshot: form.snapshot === 'latest' ? '' : form.snapshot, includePaths: lines(form.paths), ...target }
  return FleetControl.createRestore({ options: { cluster, requestId }, command })
}
