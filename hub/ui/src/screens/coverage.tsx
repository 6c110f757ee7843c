// Which claims no backup covers, and of which clusters nobody knows.
import { FleetView, type ClaimRow, type CoverageResponse } from '../wire/contract'
import { bytes, moment, shell } from '../format'
import { query, to } from '../route'
import { useAsk } from '../state/ask'
import { count, COVERAGE } from '../words'
import { told } from '../parts/columns'
import { Command } from '../parts/command'
import { chosen, Filter } from '../parts/filter'
import { isStale, NoMatch, NonePage, PAGE, Sheet, wanted, type Read } from '../parts/listing'
import { Empty, Notice, Panel } from '../parts/panel'
import { Screen } from '../parts/screen'
import type { Column } from '../parts/table'
import { Ago, At } from '../parts/time'
import { Verdict } from '../parts/verdict'
import { coverage, gaps, type Gap } from './covered'

const EVERY = 60_000

/** The backups beside a claim: one of them has to name it. */
function beside(row: ClaimRow): string {
  return `/backups?cluster=${encodeURIComponent(row.cluster)}&namespace=${encodeURIComponent(row.namespace)}`
}

const COLUMNS: Column<ClaimRow>[] = [
  {
    name: 'Claim',
    cell: (row) => (
      <>
        <a data-main href={beside(row)} title={`Backups of ${row.namespace} in ${row.cluster}`}>
          {row.namespace}/{row.name}
        </a>
        <span class="of muted"> in {row.cluster}</span>
      </>
    ),
    text: (row) => row.key,
  },
  told(COVERAGE),
  // 0 is a size that is not known.
  { name: 'Size', figures: true, cell: (row) => bytes(row.bytes || undefined), text: (row) => row.bytes || '' },
  { name: 'Created', cell: (row) => <Ago at={row.created} never="not known" />, text: (row) => (row.created === undefined ? '' : moment(row.created)) },
  {
    name: 'Excluded until',
    cell: (row) => (row.excludedUntil !== undefined || row.state === 'excluded') && <At at={row.excludedUntil} never="no end" />,
    text: (row) => (row.excludedUntil === undefined ? '' : moment(row.excludedUntil)),
  },
]

function command(): string {
  const flags = [
    ['cluster', query('cluster').split(',')],
    ['namespace', query('namespace').split(',')],
    ['state', chosen()],
  ] as const
  const parts = flags.flatMap(([name, values]) => values.filter(Boolean).map((value) => `--${name} ${shell(value)}`))
  return ['fleet coverage', query('q') && shell(query('q')), ...parts].filter(Boolean).join(' ')
}

export default function Coverage() {
  const filter = wanted()
  const request = { ...filter, pageSize: PAGE, pageToken: query('after') }
  const asked = useAsk(`coverage ${JSON.stringify(request)}`, (stop) => FleetView.coverage(request, stop), { every: EVERY, cluster: '' })
  const of = asked.data
  const counts = of && !asked.error ? { uncovered: of.uncovered, new: of.new, excluded: of.excluded } : undefined
  return (
    <Screen title="Coverage">
      <p class="lead">PersistentVolumeClaims that no backup covers. Whether a backup is well is shown on its own screen.</p>
      <Panel asked={asked} rows={2}>
        {(of) => <Known of={of} old={asked.error !== undefined} />}
      </Panel>
      <Filter label="Filter claims" words={COVERAGE} counts={counts} />
      {of && <Rows of={of} filtered={Boolean(filter.text || filter.states?.length || filter.clusters?.length || filter.namespaces?.length)} />}
      <Command text={command()} />
    </Screen>
  )
}

/** `old`: the hub could not say whether it is still so. */
function Known({ of, old }: { of: CoverageResponse; old: boolean }) {
  return (
    <div class="stack">
      <Verdict of={coverage(of)} asOf={of.asOf} old={old} />
      {gaps(of).map((gap) => (
        <Unknown key={gap.what} of={gap} />
      ))}
      {of.cut && <Notice tone="unknown">Some cluster has more claims without a backup than it reports one by one: not all of them are listed.</Notice>}
    </div>
  )
}

function Unknown({ of: { what, clusters, names, why } }: { of: Gap }) {
  const more = clusters - names.length
  return (
    <Notice tone="unknown">
      <strong>
        {what} {count(clusters, 'cluster')}
      </strong>
      <p>
        {names.map((name, n) => (
          <span key={name}>
            {n > 0 && ', '}
            <a href={to('clusters', name)}>{name}</a>
          </span>
        ))}
        {more > 0 && ` and ${more.toLocaleString('en')} more`}
      </p>
      <p>{why}</p>
    </Notice>
  )
}

const EXAMPLE = `apiVersion: backup.resticbackup.io/v1alpha1
kind: ResticBackup
metadata: { name: data, namespace: shop }
spec:
  repositoryRef: { name: nas }
  source: { pvc: { claimName: data } }
  schedule: "0 2 * * *"`

function Rows({ of, filtered }: { of: CoverageResponse; filtered: boolean }) {
  const read: Read<ClaimRow> = async ({ before, limit }, stop) => {
    const page = await FleetView.coverage({ ...wanted(), pageSize: limit, pageToken: before }, stop)
    return { asOf: page.asOf, rows: page.rows, next: page.nextPageToken }
  }
  if (of.rows.length === 0 && query('after')) return <NonePage next={of.nextPageToken} />
  if (of.rows.length === 0) return filtered ? <NoMatch noun="claims" /> : <None of={of} />
  return (
    <div>
      <p class="total small muted" role="status">
        {count(of.total, 'claim')}
        {chosen().length === 0 && of.excluded > 0 && (
          <>
            {' '}
            and <a href="/coverage?state=excluded">{count(of.excluded, 'excluded one')}</a>
          </>
        )}
      </p>
      <Sheet name="claims" caption="claims" columns={COLUMNS} rows={of.rows} id={(row) => row.key} stale={isStale} next={of.nextPageToken} read={read} />
      <details>
        <summary>What to do about one</summary>
        <div class="stack">
          <p>A ResticBackup in its namespace covers it:</p>
          <pre tabIndex={0}>{EXAMPLE}</pre>
          <Command text={`kubectl annotate pvc/data -n shop backup.resticbackup.io/exclude="a cache, made anew by the build"`} label="Or nobody needs a backup of it, and says why" />
        </div>
      </details>
    </div>
  )
}

/** No row: that is good only where all is known. */
function None({ of }: { of: CoverageResponse }) {
  const { tone, sentence } = coverage(of)
  const title = tone === 'ok' ? 'Every claim is covered or excluded.' : of.claims === 0 ? sentence : 'No claim without a backup is known.'
  return (
    <Empty title={title}>
      {of.excluded > 0 && <a href="/coverage?state=excluded">Show {count(of.excluded, 'excluded claim')}</a>}
      {gaps(of).length > 0 && <p>That does not say that there is none: not all clusters are known.</p>}
    </Empty>
  )
}
