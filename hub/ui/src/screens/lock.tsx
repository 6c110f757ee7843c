// Who holds a repository for maintenance, who waits, and why.
import { useState } from 'preact/hooks'
import { FleetView, type Lock } from '../wire/contract'
import { short, span } from '../format'
import { to } from '../route'
import { useAsk } from '../state/ask'
import { LOCK, word } from '../words'
import { Act } from '../parts/act'
import { Command } from '../parts/command'
import { Facts } from '../parts/facts'
import { Notice, Panel } from '../parts/panel'
import { Progress } from '../parts/progress'
import { Section } from '../parts/screen'
import { State } from '../parts/state'
import { Ago } from '../parts/time'

/** The watch says nothing about locks. */
export const EVERY = 5000

export function LockOf({ repository }: { repository: string }) {
  const asked = useAsk(`locks ${repository}`, (stop) => FleetView.locks({ repository }, stop), { every: EVERY, cluster: '' })
  return (
    <Section title="Lock">
      <Panel asked={asked} rows={2}>
        {({ locks }) => {
          const lock = locks[0]
          return lock ? <LockDetails lock={lock} /> : <p class="muted">Nobody holds it, and nobody waits.</p>
        }}
      </Panel>
    </Section>
  )
}

/** What the state means for who waits. */
function sentence(lock: Lock): string {
  if (lock.state === 'free') return 'Nobody holds it.'
  if (lock.state === 'draining') return 'New backups are held, and those that run are waited for, before maintenance begins.'
  if (lock.state === 'granting') return 'It is being given to the next in line.'
  if (lock.state === 'delayed') return 'Its holder fell silent. Nobody gets it until that holder has certainly ended.'
  return 'Maintenance is at work. Backups go on, as far as restic allows it.'
}

export function LockDetails({ lock }: { lock: Lock }) {
  return (
    <div class="lock">
      <div class="headline">
        <State of={word(LOCK, lock.state)} />
        <p>{sentence(lock)}</p>
      </div>
      {lock.revoked && <Notice tone="warn">A person has taken it back; its holder has not ended yet.</Notice>}
      <Progress of={lock.progress} what="Progress of the holder" />
      <Facts
        of={[
          ['Holder', lock.cluster && <><a href={to('clusters', lock.cluster)}>{lock.cluster}</a> {lock.subject}</>],
          ['Held for', lock.heldMs > 0 && span(lock.heldMs)],
          ['Renewed', lock.renewedMs > 0 && `${span(lock.renewedMs)} ago`],
          ['Ends by itself in', lock.endsMs > 0 && span(lock.endsMs)],
          ['Token', lock.token > 0 && String(lock.token)],
        ]}
      />
      <Waiters lock={lock} />
      <ResticLocks lock={lock} />
      <Release key={lock.token} lock={lock} />
    </div>
  )
}

function Waiters({ lock }: { lock: Lock }) {
  if (lock.waiters.length === 0) return null
  return (
    <>
      <h3>Waits</h3>
      <ol class="lines">
        {lock.waiters.map((waiter) => (
          <li key={`${waiter.cluster} ${waiter.subject}`}>
            <a href={to('clusters', waiter.cluster)}>{waiter.cluster}</a> {waiter.subject} <span class="muted">for {span(waiter.waitedMs)}: {waiter.reason}</span>
          </li>
        ))}
      </ol>
    </>
  )
}

function ResticLocks({ lock }: { lock: Lock }) {
  if (lock.resticLocks.length === 0) return null
  return (
    <>
      <h3>Locks of restic in the repository</h3>
      <ul class="lines">
        {lock.resticLocks.map((own) => (
          <li key={own.id}>
            <code>{short(own.id)}</code> {own.exclusive ? 'exclusive' : 'shared'} {own.user}@{own.host}{' '}
            <span class="muted">
              unchanged since <Ago at={own.unchangedSince} />
              {own.keptBecause && `; stays: ${own.keptBecause}`}
            </span>
          </li>
        ))}
      </ul>
    </>
  )
}

function Release({ lock }: { lock: Lock }) {
  const [said, setSaid] = useState('')
  const name = lock.repository || short(lock.resticId)
  const command = `fleet locks release ${name} --token ${lock.token}`
  const release = (checked: boolean, text: string) => async () => {
    await FleetView.releaseLock({ repository: lock.resticId, token: lock.token, checked })
    setSaid(text)
  }
  return (
    <>
      {said && (
        <div role="status">
          <Notice tone="ok">{said}</Notice>
        </div>
      )}
      {lock.state === 'held' && !lock.revoked && (
        <Act label="Take the lock back" verb="run" danger typed={name} title={`Take the lock of ${name} back`} run={release(false, 'The holder ends its pod and releases; this takes some seconds.')}>
          <p>
            Ends {lock.cluster} {lock.subject} in the middle of its work. restic leaves the repository consistent; what it had not finished is done by the next run.
          </p>
          <Command text={command} />
        </Act>
      )}
      {lock.state === 'delayed' && (
        <Act label="End the delay" verb="run" danger typed={name} title={`End the delay of ${name}`} run={release(true, 'The delay has ended; the next in line gets the lock.')}>
          <p>
            Only when you have made certain that no pod of {lock.subject} runs in cluster {lock.cluster} any more. Two runs of maintenance at once can damage the repository.
          </p>
          <Command text={`${command} --i-checked`} />
        </Act>
      )}
    </>
  )
}
