// Repositories that are held for maintenance, or waited for.
import { FleetView } from '../wire/contract'
import { short } from '../format'
import { query, to } from '../route'
import { useAsk } from '../state/ask'
import { Command } from '../parts/command'
import { Empty, Panel } from '../parts/panel'
import { Screen, Section } from '../parts/screen'
import { EVERY, LockDetails } from './lock'

export default function Locks() {
  const repository = query('repository')
  const asked = useAsk(`locks ${repository}`, (stop) => FleetView.locks({ repository }, stop), { every: EVERY, cluster: '' })
  return (
    <Screen title="Locks">
      <p class="lead">One run of maintenance at a time changes a repository. Backups do not need this lock.</p>
      <Panel asked={asked}>
        {({ locks }) =>
          locks.length === 0 ? (
            <Empty title="No repository is held, and nobody waits." />
          ) : (
            <>
              {locks.map((lock) => (
                <Section key={lock.resticId} title={lock.repository || short(lock.resticId)} aside={<a href={to('repositories', lock.resticId)}>Repository</a>}>
                  <LockDetails lock={lock} />
                </Section>
              ))}
            </>
          )
        }
      </Panel>
      <Command text={repository ? `fleet why-locked ${short(repository)}` : 'fleet locks'} />
    </Screen>
  )
}
