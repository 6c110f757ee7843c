// Is the watcher well? The hub itself.
import { FleetView, type HealthResponse } from '../wire/contract'
import { bytes, number } from '../format'
import { useAsk } from '../state/ask'
import { lastHeard, late, paused } from '../state/live'
import { count } from '../words'
import { Command } from '../parts/command'
import { Facts } from '../parts/facts'
import { Panel } from '../parts/panel'
import { Screen, Section } from '../parts/screen'
import { Sign } from '../parts/state'
import { Table } from '../parts/table'
import { Ago, At } from '../parts/time'

export default function Health() {
  const asked = useAsk('health', (stop) => FleetView.health({}, stop), { every: 10_000 })
  return (
    <Screen title="Hub">
      <Panel asked={asked}>{(health) => <Details of={health} old={asked.error !== undefined} />}</Panel>
      <Command text="fleet hub backup FILE" label="Copies the hub's store" />
    </Screen>
  )
}

/** `old`: the hub could not say whether it is still so. */
function Details({ of, old }: { of: HealthResponse; old: boolean }) {
  const tone = old || late.value ? 'unknown' : of.troubles.length > 0 ? 'warn' : 'ok'
  return (
    <>
      <div class={`verdict ${tone}`}>
        <Sign tone={tone} />
        <div>
          <p class="word">{old || (late.value && !paused.value) ? 'Silent' : late.value ? 'Not known' : of.troubles.length > 0 ? count(of.troubles.length, 'matter') : 'Well'}</p>
          <p>
            heard <Ago at={lastHeard.value || of.asOf} />
          </p>
        </div>
      </div>
      {of.troubles.length > 0 && (
        <ol class="needs">
          {of.troubles.map((trouble) => (
            <li key={trouble.what + trouble.text}>
              <strong>{trouble.what}</strong>
              <p>{trouble.text}</p>
              <code class="next">{trouble.next}</code>
            </li>
          ))}
        </ol>
      )}
      <Facts
        of={[
          ['Version', of.version],
          ['Started', <At at={of.started} />],
          ['Spokes connected', number(of.sessions)],
          ['Viewers', number(of.watches)],
          ['Store', of.storeWell ? 'writes are kept' : 'the last write was not kept'],
          ['Size of the store', bytes(of.storeBytes || undefined)],
          ['Store copied', <At at={of.storeCopied} never="never" />],
          ['Start number', number(of.epoch)],
        ]}
      />
      {of.certificates.length > 0 && (
        <Section title="Certificates">
          <Table caption="Certificates of the hub" columns={[{ name: 'Of', cell: (row) => row.name, text: (row) => row.name }, { name: 'Ends', cell: (row) => <At at={row.ends} />, text: (row) => row.ends ?? '' }]} rows={of.certificates} id={(row) => row.name} />
        </Section>
      )}
      {of.versions.length > 0 && (
        <Section title="Operators in the clusters">
          <Table
            caption="Versions of operators"
            columns={[
              { name: 'Version', cell: (row) => row.version || 'not known', text: (row) => row.version },
              { name: 'Clusters', figures: true, cell: (row) => number(row.clusters), text: (row) => row.clusters },
            ]}
            rows={of.versions}
            id={(row) => row.version}
          />
        </Section>
      )}
    </>
  )
}
