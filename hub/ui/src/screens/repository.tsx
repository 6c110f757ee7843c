// One physical repository: its figures over time, who uses it, and who holds it.
import { FleetControl, type RepositoryBinding, type RepositoryRow } from '../wire/contract'
import { bytes, number, shell, short } from '../format'
import { path, to } from '../route'
import { BINDING, REPOSITORY, word } from '../words'
import { Act } from '../parts/act'
import { Command } from '../parts/command'
import { Facts } from '../parts/facts'
import { isStale } from '../parts/listing'
import { Notice, Panel } from '../parts/panel'
import { Screen, Section } from '../parts/screen'
import { State } from '../parts/state'
import { Table, type Column } from '../parts/table'
import { Ago, At } from '../parts/time'
import { Growth } from './growth'
import { LockOf } from './lock'
import { Around, useObject } from './object'
import { figuresOld } from './repositories'

export default function Repository() {
  const wanted = path.value.slice(1).join('/')
  const asked = useObject('repositories', wanted, '')
  const row = asked.data?.row?.repository
  return (
    <Screen title={row?.name || short(wanted)} up={['Repositories', '/repositories']} actions={row && <Actions row={row} />}>
      <Panel asked={asked} rows={6}>
        {(of) => (
          <>
            {row && <Details row={row} />}
            <Around of={of} />
          </>
        )}
      </Panel>
      <Command text={`fleet repos ${shell(row && !row.resticId ? row.name : short(wanted))} -o wide`} />
    </Screen>
  )
}

function Details({ row }: { row: RepositoryRow }) {
  const figures = row.statistics
  const old = figuresOld(row)
  return (
    <>
      <div class="headline">
        <State of={word(REPOSITORY, row.state)} />
        {old && <span class="muted">figures are stale</span>}
      </div>
      {row.alarm && <Notice tone="bad">{row.alarm}</Notice>}
      <Facts
        of={[
          ['Stored', <span class={old ? 'old' : undefined}>{bytes(figures?.storedBytes)}</span>],
          ['Without compression', figures && bytes(figures.uncompressedBytes)],
          ['Snapshots', figures && number(figures.snapshots)],
          ['Files in all snapshots', figures?.files !== undefined && number(figures.files)],
          ['Figures of', <At at={figures?.asOf} never="not read yet" />],
          ['Read by', row.statisticsFrom && <a href={to('clusters', row.statisticsFrom)}>{row.statisticsFrom}</a>],
          ['Backups', <a href={`/backups?q=${encodeURIComponent(row.resticId || row.name)}`}>{number(row.backups)}</a>],
          ['Retention policies', number(row.policies)],
          ['restic id', row.resticId && <code>{row.resticId}</code>],
        ]}
      />
      {row.resticId && <Growth repository={row.resticId} />}
      {row.resticId && <LockOf repository={row.resticId} />}
      <Section title="Used by">
        <Table caption={`Clusters that use ${row.name}`} columns={BINDINGS} rows={row.bindings} id={(binding) => to(binding.cluster, binding.namespace, binding.name)} stale={isStale} />
      </Section>
      {figures && figures.hosts.length > 0 && (
        <Section title="Hosts">
          <Table
            caption="Hosts with snapshots"
            columns={[
              { name: 'Host', cell: (host) => host.host, text: (host) => host.host },
              { name: 'Snapshots', figures: true, cell: (host) => number(host.snapshots), text: (host) => host.snapshots },
              { name: 'Newest', cell: (host) => <Ago at={host.latest} />, text: (host) => host.latest ?? '' },
            ]}
            rows={figures.hosts}
            id={(host) => host.host}
          />
        </Section>
      )}
    </>
  )
}

const BINDINGS: Column<RepositoryBinding>[] = [
  {
    name: 'ResticRepository',
    cell: (binding) => (
      <>
        <a href={to('snapshots', binding.cluster, binding.namespace, binding.name)}>
          {binding.namespace}/{binding.name}
        </a>
        <span class="of muted"> in {binding.cluster}</span>
      </>
    ),
    text: (binding) => `${binding.cluster}/${binding.namespace}/${binding.name}`,
  },
  {
    name: 'State',
    cell: (binding) => (
      <>
        <State of={binding.ready ? ['ok', 'Ready'] : ['bad', binding.reason || 'Not ready']} stale={binding.freshness?.stale} />
        {!binding.ready && binding.message && <p class="reason muted">{binding.message}</p>}
      </>
    ),
    text: (binding) => (binding.ready ? 'Ready' : binding.reason),
  },
  {
    name: 'Binding',
    cell: (binding) => (
      <>
        {binding.binding ? <State of={word(BINDING, binding.binding)} /> : <span class="muted">not known</span>}
        {binding.bindingReason && <p class="reason muted">{binding.bindingReason}</p>}
      </>
    ),
    text: (binding) => binding.binding,
  },
  { name: 'Location', wide: true, cell: (binding) => <code class="url">{binding.url}</code>, text: (binding) => binding.url },
]

function Actions({ row }: { row: RepositoryRow }) {
  const binding = row.bindings.find((binding) => !binding.freshness?.stale) ?? row.bindings[0]
  if (!binding) return null
  const repository = { namespace: binding.namespace, name: binding.name }
  const options = (requestId: string) => ({ cluster: binding.cluster, requestId })
  const what = `${binding.cluster}/${binding.namespace}/${binding.name}`
  return (
    <>
      <a class="button" href={to('snapshots', binding.cluster, binding.namespace, binding.name)}>
        Snapshots
      </a>
      <Act label="Check now" verb="run" title={`Check ${row.name || what}`} run={(id) => FleetControl.runCheck({ options: options(id), command: { repository } })}>
        <p>Cluster {binding.cluster} reads the repository and checks its integrity, under the maintenance lock. Nothing is changed; other maintenance waits meanwhile.</p>
        <Command text={`fleet repos check ${what}`} />
      </Act>
      <Act label="Remove left-over locks" verb="run" title={`Remove left-over locks of ${row.name || what}`} run={(id) => FleetControl.unlock({ options: options(id), command: { repository } })}>
        <p>Removes locks of restic whose process has ended: unchanged for long enough, and no owner in the fleet is alive. Locks in use stay.</p>
        <Command text={`fleet repos unlock ${what}`} />
      </Act>
    </>
  )
}
