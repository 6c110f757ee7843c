// One backup: is it good, why not, and what can be done.
import { FleetControl, FleetView, type BackupRow } from '../wire/contract'
import { bytes, number, short } from '../format'
import { path, to } from '../route'
import { useAsk } from '../state/ask'
import { BACKUP, RESULT, word } from '../words'
import { Act, requestId } from '../parts/act'
import { Command } from '../parts/command'
import { Facts } from '../parts/facts'
import { Failed, Notice, Skeleton } from '../parts/panel'
import { Progress } from '../parts/progress'
import { Screen, Section } from '../parts/screen'
import { State } from '../parts/state'
import { Ago, At } from '../parts/time'
import { Refused } from '../wire/grpc'

export default function Backup() {
  const [, cluster = '', namespace = '', name = ''] = path.value
  const place = `${cluster}/${namespace}/${name}`
  const request = { collection: 'backups' as const, filter: { clusters: [cluster], namespaces: [namespace], text: name } }
  const asked = useAsk(
    `backup ${place}`,
    async (stop) => {
      const page = await FleetView.list(request, stop)
      const row = page.rows.find((row) => row.key === place)?.backup
      if (!row) throw new Refused('not-found', `cluster ${cluster} reports no ResticBackup ${namespace}/${name}`)
      return { asOf: page.asOf, row }
    },
    { cluster },
  )
  const row = asked.data?.row
  return (
    <Screen title={`${namespace}/${name}`} up={[`Backups of ${cluster}`, `/backups?cluster=${encodeURIComponent(cluster)}`]} actions={row && <Actions row={row} />}>
      {asked.error && <Failed error={asked.error} since={asked.at} />}
      {row ? <Details row={row} /> : !asked.error && <Skeleton rows={6} />}
      <Command text={`fleet backups ${place}`} />
    </Screen>
  )
}

function Details({ row }: { row: BackupRow }) {
  const backup = row.backup
  const run = backup?.lastRun
  const stale = row.freshness?.stale ?? false
  return (
    <div class={stale ? 'stack old' : 'stack'}>
      <div class="headline">
        <State of={word(BACKUP, row.state)} stale={stale} />
        {row.reason && <p>{row.reason}</p>}
      </div>
      {stale && (
        <Notice tone="unknown">
          Cluster {row.cluster} is silent since <Ago at={row.freshness?.lastHeard} />: this is what was known last.
        </Notice>
      )}
      {backup?.running && <Progress of={backup.progress} what="Progress of the backup" />}
      <Facts
        of={[
          ['Last success', <At at={backup?.lastSuccess} never="never" />],
          ['Next success due', row.due !== undefined && <At at={row.due} />],
          ['Next run', backup?.suspended ? 'suspended' : backup?.nextRun !== undefined && <At at={backup.nextRun} />],
          ['Schedule', backup?.schedule && `${backup.schedule}${backup.timezone ? ` (${backup.timezone})` : ''}`],
          ['Source', backup?.source],
          ['Runs', backup && `${number(backup.runsSucceeded)} of ${number(backup.runsTotal)} good`],
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
              ['Added', bytes(run.bytesAdded)],
              ['Read', `${bytes(run.bytesProcessed)} in ${number(run.filesProcessed)} files`],
              ['Snapshot', run.snapshotId && backup && <a href={`${to('snapshots', row.cluster, backup.repositoryNamespace, backup.repositoryName, run.snapshotId)}?backup=${encodeURIComponent(`${row.namespace}/${row.name}`)}`}>{short(run.snapshotId)}</a>],
            ]}
          />
        </Section>
      )}
      <Related row={row} />
    </div>
  )
}

function Related({ row }: { row: BackupRow }) {
  const backup = row.backup
  const snapshots = backup && `${to('snapshots', row.cluster, backup.repositoryNamespace, backup.repositoryName)}?backup=${encodeURIComponent(`${row.namespace}/${row.name}`)}`
  return (
    <Section title="Belongs to">
      <ul class="tree">
        <li>
          Cluster <a href={to('clusters', row.cluster)}>{row.cluster}</a>
        </li>
        <li>
          Repository {backup?.resticId ? <a href={to('repositories', backup.resticId)}>{backup.repositoryName}</a> : backup?.repositoryName}
          <ul>
            <li>
              <a href={snapshots}>Snapshots of this backup</a>
            </li>
            <li>
              <a href={`/locks?repository=${encodeURIComponent(backup?.resticId ?? '')}`}>Lock</a>
            </li>
          </ul>
        </li>
      </ul>
    </Section>
  )
}

function Actions({ row }: { row: BackupRow }) {
  const backup = { namespace: row.namespace, name: row.name }
  const options = () => ({ cluster: row.cluster, requestId: requestId() })
  const what = `${row.cluster}/${row.namespace}/${row.name}`
  const wait = row.freshness?.stale && <Notice tone="unknown">The cluster is silent: it begins when the cluster is back, within an hour, or not at all.</Notice>
  return (
    <>
      <Act
        label="Run now"
        primary
        verb="run"
        title={`Run ${what} now`}
        run={() => FleetControl.runBackup({ options: options(), command: { backup } })}
        off={row.backup?.running ? 'A run is under way' : undefined}
      >
        <p>One backup run begins as soon as the cluster can begin it. Nothing is removed.</p>
        {wait}
        <Command text={`fleet backups run ${what}`} />
      </Act>
      {row.backup?.suspended ? (
        <Act label="Resume" verb="run" title={`Resume ${what}`} run={() => FleetControl.resume({ options: options(), command: { backup } })}>
          <p>The schedule {row.backup.schedule} starts runs again.</p>
          {wait}
          <Command text={`fleet backups resume ${what}`} />
        </Act>
      ) : (
        <Act label="Suspend" verb="run" title={`Suspend ${what}`} run={() => FleetControl.suspend({ options: options(), command: { backup } })}>
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
