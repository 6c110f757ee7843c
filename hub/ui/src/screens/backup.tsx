// One backup: is it good, why not, and what can be done.
import { FleetControl, type BackupRow, type GetResponse } from '../wire/contract'
import { bytes, figure, number, short } from '../format'
import { path, to } from '../route'
import { BACKUP, RESULT, word } from '../words'
import { Act } from '../parts/act'
import { Command } from '../parts/command'
import { Facts } from '../parts/facts'
import { Notice, Panel } from '../parts/panel'
import { Progress } from '../parts/progress'
import { Screen, Section } from '../parts/screen'
import { State } from '../parts/state'
import { At } from '../parts/time'
import { Strip } from '../parts/strip'
import { Around, Silent, useObject } from './object'

export default function Backup() {
  const [, cluster = '', namespace = '', name = ''] = path.value
  const place = `${cluster}/${namespace}/${name}`
  const asked = useObject('backups', place, cluster)
  const row = asked.data?.row?.backup
  return (
    <Screen title={`${namespace}/${name}`} up={[`Backups of ${cluster}`, `/backups?cluster=${encodeURIComponent(cluster)}`]} actions={row && <Actions row={row} />}>
      <Panel asked={asked} rows={6}>{(of) => row && <Details row={row} of={of} />}</Panel>
      <Command text={`fleet backups ${place}`} />
    </Screen>
  )
}

function Details({ row, of }: { row: BackupRow; of: GetResponse }) {
  const backup = row.backup
  const run = backup?.lastRun
  const stale = row.freshness?.stale ?? false
  return (
    <div class={stale ? 'stack old' : 'stack'}>
      <div class="headline">
        <State of={word(BACKUP, row.state)} stale={stale} />
        {row.reason && <p>{row.reason}</p>}
        {row.since !== undefined && row.state !== 'ok' && <p class="muted">since <At at={row.since} /></p>}
      </div>
      <Silent cluster={row.cluster} freshness={row.freshness} />
      {backup?.running && <Progress of={backup.progress} what="Progress of the backup" />}
      <Strip days={of.days} heard={stale ? row.freshness?.lastHeard : undefined} />
      <Facts
        of={[
          ['Last success', <At at={backup?.lastSuccess} never="never" />],
          ['Next success due', row.due !== undefined && <At at={row.due} />],
          ['Next run', backup?.suspended ? 'suspended' : backup?.nextRun !== undefined && <At at={backup.nextRun} />],
          ['Schedule', backup?.schedule && `${backup.schedule}${backup.timezone ? ` (${backup.timezone})` : ''}`],
          ['Source', backup?.source],
          ['Runs', backup && `${number(backup.runsSucceeded)} of ${number(backup.runsTotal)} good`],
          ['Snapshots', backup && <a href={snapshots(row)}>of this backup</a>],
          ['Known as of', <At at={row.freshness?.lastHeard} />],
        ]}
      />
      {run && (
        <Section title="Last run">
          <Facts
            of={[
              ['Result', <State of={word(RESULT, run.result)} stale={stale} />],
              ['Reason', run.reason],
              ['Message', run.message],
              ['Began', <At at={run.started} />],
              ['Ended', <At at={run.finished} never="not yet" />],
              ['Added', bytes(figure(run, 'bytesAdded'))],
              ['Read', figure(run, 'filesProcessed') === undefined ? '–' : `${bytes(run.bytesProcessed)} in ${number(run.filesProcessed)} files`],
              ['Snapshot', run.snapshotId && backup && <a href={`${to('snapshots', row.cluster, backup.repositoryNamespace, backup.repositoryName, run.snapshotId)}?backup=${encodeURIComponent(`${row.namespace}/${row.name}`)}`}>{short(run.snapshotId)}</a>],
            ]}
          />
        </Section>
      )}
      <Around of={of} />
    </div>
  )
}

function snapshots({ cluster, namespace, name, backup }: BackupRow): string {
  return `${to('snapshots', cluster, backup?.repositoryNamespace ?? '', backup?.repositoryName ?? '')}?backup=${encodeURIComponent(`${namespace}/${name}`)}`
}

function Actions({ row }: { row: BackupRow }) {
  const backup = { namespace: row.namespace, name: row.name }
  const options = (requestId: string) => ({ cluster: row.cluster, requestId })
  const what = `${row.cluster}/${row.namespace}/${row.name}`
  const wait = row.freshness?.stale && <Notice tone="unknown">The cluster is silent: it begins when the cluster is back, within an hour, or not at all.</Notice>
  return (
    <>
      <Act
        label="Run now"
        primary
        verb="run"
        title={`Run ${what} now`}
        run={(id) => FleetControl.runBackup({ options: options(id), command: { backup } })}
        off={row.backup?.running ? 'A run is under way' : undefined}
      >
        <p>One backup run begins as soon as the cluster can begin it. Nothing is removed.</p>
        {wait}
        <Command text={`fleet backups run ${what}`} />
      </Act>
      {row.backup?.suspended ? (
        <Act label="Resume" verb="run" title={`Resume ${what}`} run={(id) => FleetControl.resume({ options: options(id), command: { backup } })}>
          <p>The schedule {row.backup.schedule} starts runs again.</p>
          {wait}
          <Command text={`fleet backups resume ${what}`} />
        </Act>
      ) : (
        <Act label="Suspend" verb="run" title={`Suspend ${what}`} run={(id) => FleetControl.suspend({ options: options(id), command: { backup } })}>
          <p>No more runs begin by schedule until somebody resumes it. Snapshots that exist stay. A suspended backup is not late.</p>
          {wait}
          <Command text={`fleet backups suspend ${what}`} />
        </Act>
      )}
      <a class="button" href={`/restore?backup=${encodeURIComponent(what)}`}>
        Restore
      </a>
    </>
  )
}
