// Is everything backed up, and how do you know?
import { FleetView, type Attention, type Row, type StatusResponse } from '../wire/contract'
import { bytes, number } from '../format'
import { to } from '../route'
import { useAsk } from '../state/ask'
import { useStatus } from '../state/status'
import { ATTENTION, BACKUP, CLUSTER, count, states, word, type Tone } from '../words'
import { Command } from '../parts/command'
import { Empty, Notice, Panel } from '../parts/panel'
import { Screen, Section } from '../parts/screen'
import { Sign, State } from '../parts/state'
import { Ago } from '../parts/time'
import { Verdict } from '../parts/verdict'
import { coverage, coveredNow } from './covered'
import { verdict } from './verdict'

export default function Home() {
  const asked = useStatus()
  return (
    <Screen title="Overview">
      <Panel asked={asked} rows={6}>
        {(status) => (
          <>
            <Verdict of={verdict(status)} asOf={status.asOf} old={asked.error !== undefined} />
            <Counts status={status} />
            {status.pause && (
              <Notice tone="warn">
                <strong>All maintenance is paused</strong> by {status.pause.who}, since <Ago at={status.pause.since} />: {status.pause.reason}. Backups and restores go on.
              </Notice>
            )}
            <NeedsYou status={status} />
            <Below status={status} />
            <Command text="fleet status" />
          </>
        )}
      </Panel>
    </Screen>
  )
}

/** Worst first; each leads to what it counts. */
function Counts({ status }: { status: StatusResponse }) {
  const counted = states(BACKUP, Object.keys(status.backupsByState)).filter((state) => status.backupsByState[state])
  return (
    <ul class="tiles" aria-label="Backups by state">
      {counted.map((state) => {
        const [tone, text] = word(BACKUP, state)
        return (
          <li key={state}>
            <a href={`/backups?state=${state}`} class={`tile ${tone}`}>
              <span class="figure">{number(status.backupsByState[state])}</span>
              <span class="label">
                <Sign tone={tone} />
                {text}
              </span>
            </a>
          </li>
        )
      })}
      <Tile href="/clusters" figure={status.clustersStale ? `${status.clusters - status.clustersStale} of ${status.clusters}` : number(status.clusters)} label={status.clustersStale ? 'Clusters heard' : 'Clusters'} />
      <Tile href="/repositories" figure={number(status.repositories)} label="Repositories" />
      <Tile href="/storage" figure={bytes(status.storedBytes || undefined)} label="Stored" />
      <Covered />
    </ul>
  )
}

function Tile({ href, figure, label, tone }: { href: string; figure: string; label: string; tone?: Tone }) {
  return (
    <li>
      <a href={href} class={tone ? `tile ${tone}` : 'tile'}>
        <span class="figure">{figure}</span>
        <span class="label">
          {tone && <Sign tone={tone} />}
          {label}
        </span>
      </a>
    </li>
  )
}

/** Claims without a backup, or how much of the claims is known to be covered. */
function Covered() {
  const asked = useAsk('home coverage', (stop) => FleetView.coverage({ pageSize: 1 }, stop), { every: 60_000, cluster: '' })
  const of = asked.data
  if (!of) return asked.error ? <Tile href="/coverage" figure="–" label="Claims covered" tone="unknown" /> : null
  const tone = asked.error ? 'unknown' : coverage(of).tone
  if (of.uncovered > 0) return <Tile href="/coverage" figure={number(of.uncovered)} label="Uncovered claims" tone={tone} />
  const figure = of.claims === 0 ? '–' : `${number(coveredNow(of))} of ${number(of.claims)}`
  return <Tile href="/coverage" figure={figure} label="Claims covered" tone={tone} />
}

function NeedsYou({ status }: { status: StatusResponse }) {
  const hidden = status.matters - status.needsYou.length
  return (
    <Section title="Needs you" aside={<span class="muted small">{count(status.matters, 'matter')}, grouped by cause</span>}>
      {status.needsYou.length === 0 ? (
        <Empty title="Nothing waits for a person." />
      ) : (
        <ol class="needs">
          {status.needsYou.map((needs) => (
            <Need key={`${needs.state} ${needs.subject}`} of={needs} />
          ))}
        </ol>
      )}
      {hidden > 0 && (
        <p class="muted small">
          and {hidden} more: {status.restNext}
        </p>
      )}
    </Section>
  )
}

/** Where a matter is shown. */
function target(needs: Attention): string {
  const first = needs.subject.replace(/ and \d+ more$/, '')
  const parts = first.split('/')
  if (needs.state === 'delayed') return '/locks'
  // Many at once are one matter, without the name of one.
  if (needs.state === 'stale' && first.includes(' ')) return '/clusters?state=stale'
  if (needs.state === 'waiting') return /^p-\w+$/.test(first) ? to('plans', first) : '/plans'
  if (needs.state in CLUSTER && parts.length === 1) return to('clusters', first)
  if (needs.state === 'damaged' || needs.state === 'unready') return `/repositories?q=${encodeURIComponent(parts.at(-1) ?? '')}`
  if (needs.state === 'restore-failed') return needs.count === 1 && parts.length === 3 ? to('restores', ...parts) : '/restores?state=failed'
  if (needs.state === 'policy-failed') return needs.count === 1 && parts.length === 3 ? to('policies', ...parts) : '/policies?state=failed'
  if (needs.count > 1 && needs.state in BACKUP) return `/backups?state=${needs.state}`
  if (parts.length === 3) return to('backups', ...parts)
  return '/backups'
}

function Need({ of: needs }: { of: Attention }) {
  return (
    <li data-row>
      <State of={word(ATTENTION, needs.state)} />
      <div>
        <a href={target(needs)}>{needs.subject}</a>
        <p class="muted">{needs.detail}</p>
      </div>
      <code class="next">{needs.next}</code>
    </li>
  )
}

const FEW = 3
const WORST = 20

/** One cluster: its backups. Some: a row for each. Many: the worst of them. */
function Below({ status }: { status: StatusResponse }) {
  if (status.clusters === 0) {
    return (
      <Empty title="No cluster has connected yet.">
        <p>A cluster joins with one command, which this prints with its token:</p>
        <Command text="fleet clusters join NAME" label="In a terminal" />
      </Empty>
    )
  }
  return status.clusters <= FEW ? <Worst collection="backups" title="Backups" /> : <Worst collection="clusters" title={status.clusters > WORST ? 'Clusters, worst first' : 'Clusters'} />
}

function Worst({ collection, title }: { collection: 'backups' | 'clusters'; title: string }) {
  const request = { collection, pageSize: WORST }
  const asked = useAsk(`home ${collection}`, (stop) => FleetView.list(request, stop), { cluster: '' })
  return (
    <Section title={title} aside={<a href={`/${collection}`}>All</a>}>
      <Panel asked={asked}>{(page) => (page.rows.length === 0 ? <Empty title={`No cluster reports a ${collection === 'backups' ? 'backup' : 'state'}.`} /> : <ul class="lines">{page.rows.map((row) => <Line key={row.key} row={row} />)}</ul>)}</Panel>
    </Section>
  )
}

function Line({ row: { key, backup, cluster } }: { row: Row }) {
  if (backup) {
    return (
      <li data-row class={backup.freshness?.stale ? 'old' : undefined}>
        <State of={word(BACKUP, backup.state)} stale={backup.freshness?.stale} />
        <a href={to('backups', ...key.split('/'))}>{key}</a>
        <span class="muted">
          last success <Ago at={backup.backup?.lastSuccess} />
        </span>
      </li>
    )
  }
  if (!cluster) return null
  return (
    <li data-row class={cluster.freshness?.stale ? 'old' : undefined}>
      <State of={word(CLUSTER, cluster.state)} />
      <a href={to('clusters', cluster.name)}>{cluster.name}</a>
      <span class="muted">
        {cluster.complete || cluster.backups > 0 ? count(cluster.backups, 'backup') : 'backups not known yet'}
        {cluster.backupsUnwell > 0 && `, ${cluster.backupsUnwell} unwell`}, heard <Ago at={cluster.freshness?.lastHeard} />
      </span>
    </li>
  )
}
