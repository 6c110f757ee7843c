// One retention policy: what it keeps, how its last run went, and what can be done.
import { FleetControl, type GetResponse, type PolicyRow, type RetentionRule } from '../wire/contract'
import { path } from '../route'
import { OUTCOME, POLICY, word } from '../words'
import { Act } from '../parts/act'
import { Repository as RepositoryOf } from '../parts/columns'
import { Command } from '../parts/command'
import { Facts } from '../parts/facts'
import { Notice, Panel } from '../parts/panel'
import { Progress } from '../parts/progress'
import { Screen, Section } from '../parts/screen'
import { State } from '../parts/state'
import { At } from '../parts/time'
import { Around, Silent, useObject } from './object'

export default function Policy() {
  const [, cluster = '', namespace = '', name = ''] = path.value
  const place = `${cluster}/${namespace}/${name}`
  const asked = useObject('policies', place, cluster)
  const row = asked.data?.row?.policy
  return (
    <Screen title={`${namespace}/${name}`} up={['Retention', '/policies']} actions={row && <Actions row={row} />}>
      <Panel asked={asked} rows={6}>{(of) => row && <Details row={row} of={of} />}</Panel>
      <Command text={`kubectl -n ${namespace} describe grp ${name}`} label={`In cluster ${cluster}`} />
    </Screen>
  )
}

const KEEPS: [keyof RetentionRule, string][] = [
  ['keepLast', 'the last'],
  ['keepHourly', 'hourly'],
  ['keepDaily', 'daily'],
  ['keepWeekly', 'weekly'],
  ['keepMonthly', 'monthly'],
  ['keepYearly', 'yearly'],
  ['keepWithin', 'all within'],
  ['keepWithinHourly', 'hourly within'],
  ['keepWithinDaily', 'daily within'],
  ['keepWithinWeekly', 'weekly within'],
  ['keepWithinMonthly', 'monthly within'],
  ['keepWithinYearly', 'yearly within'],
]

function keeps(rule: RetentionRule): string {
  const parts = KEEPS.flatMap(([field, word]) => (rule[field] ? [`${word} ${String(rule[field])}`] : []))
  if (rule.keepTags.length > 0) parts.push(`those tagged ${rule.keepTags.join(', ')}`)
  const of = [rule.tags.length > 0 && `tagged ${rule.tags.join(' and ')}`, rule.hostname && `of host ${rule.hostname}`].filter(Boolean)
  const which = of.length > 0 ? `of snapshots ${of.join(', ')} ` : ''
  return parts.length > 0 ? `${which}keeps ${parts.join(', ')}` : `${which}names nothing to keep`
}

function Details({ row, of }: { row: PolicyRow; of: GetResponse }) {
  const policy = row.policy
  const stale = row.freshness?.stale ?? false
  const spec = policy?.spec
  return (
    <div class={stale ? 'stack old' : 'stack'}>
      <div class="headline">
        <State of={word(POLICY, row.state)} stale={stale} />
        {row.reason && <p>{row.reason}</p>}
      </div>
      {row.state === 'waiting' && (
        <Notice tone="warn">
          <a href="/plans">Read the plan, and approve or reject it</a>
        </Notice>
      )}
      <Silent cluster={row.cluster} freshness={row.freshness} />
      {spec?.unclear && <Notice tone="warn">All that it could match is kept: {spec.unclear}</Notice>}
      {spec?.preview && <Notice tone="run">It is in preview: what it would remove is only shown.</Notice>}
      <Progress of={policy?.progress} what="Progress of the run" />
      <Facts
        of={[
          ['Last run', <At at={policy?.lastRun} never="never" />],
          ['Result', policy?.lastResult && <State of={word(OUTCOME, policy.lastResult)} stale={stale} />],
          ['Next run', policy?.suspended ? 'suspended' : row.nextRun !== undefined && <At at={row.nextRun} />],
          ['Schedule', policy?.schedule],
          ['Repository', policy?.repositoryName && <RepositoryOf of={policy} />],
          ['Known as of', <At at={row.freshness?.lastHeard} />],
        ]}
      />
      <Section title="Rules">
        {spec?.rules.length && !spec.unclear ? (
          <ol class="lines">
            {spec.rules.map((rule, n) => (
              <li key={n}>{keeps(rule)}</li>
            ))}
          </ol>
        ) : (
          <p class="muted">Not known.</p>
        )}
      </Section>
      <Around of={of} />
    </div>
  )
}

function Actions({ row }: { row: PolicyRow }) {
  const policy = { namespace: row.namespace, name: row.name }
  const options = (requestId: string) => ({ cluster: row.cluster, requestId })
  const what = `${row.cluster}/${row.namespace}/${row.name}`
  return (
    <>
      <Act label="Preview" primary verb="run" title={`Preview ${what}`} run={(id) => FleetControl.previewRetention({ options: options(id), command: { policy } })}>
        <p>Shows which snapshots a run would remove now, as a plan. Nothing is removed.</p>
        <Command text={`fleet retention preview ${what}`} />
      </Act>
      <Act label="Run now" verb="run" danger typed={row.name} title={`Run ${what} now`} run={(id) => FleetControl.runRetention({ options: options(id), command: { policy } })}>
        <p>Removes the snapshots that no policy keeps, under the maintenance lock. A plan over the guard waits for approval instead.</p>
        <Command text={`fleet retention run ${what}`} />
      </Act>
      {row.policy?.suspended ? (
        <Act label="Resume" verb="run" title={`Resume ${what}`} run={(id) => FleetControl.resume({ options: options(id), command: { policy } })}>
          <p>The schedule {row.policy.schedule} starts runs again.</p>
          <Command text={`fleet retention resume ${what}`} />
        </Act>
      ) : (
        <Act label="Suspend" verb="run" title={`Suspend ${what}`} run={(id) => FleetControl.suspend({ options: options(id), command: { policy } })}>
          <p>No more runs begin by schedule. What this policy keeps stays kept.</p>
          <Command text={`fleet retention suspend ${what}`} />
        </Act>
      )}
    </>
  )
}
