// The fleet in one sentence. Pure.
import type { StatusResponse } from '../wire/contract'
import { BACKUP, count, states, word, type Tone } from '../words'

export interface Verdict {
  tone: Tone
  word: string
  sentence: string
}

/** States that make the fleet unsafe or unknown, with how many backups are in them. */
function bad(status: StatusResponse): string {
  const unwell = states(BACKUP, Object.keys(status.backupsByState)).filter((state) => !['ok', 'running', 'suspended'].includes(state))
  const parts = unwell.flatMap((state) => {
    const n = status.backupsByState[state]
    return n ? [`${n.toLocaleString('en')} ${word(BACKUP, state)[1].toLowerCase()}`] : []
  })
  return parts.join(', ')
}

/** The hub's own reason goes before what is counted here: it knows why, such as that it has just started. */
export function verdict(status: StatusResponse): Verdict {
  const own = counted(status)
  return status.reason && own.tone !== 'ok' ? { ...own, sentence: `${status.reason[0]?.toUpperCase()}${status.reason.slice(1)}` } : own
}

function counted(status: StatusResponse): Verdict {
  const all = `${count(status.backups, 'backup')} in ${count(status.clusters, 'cluster')}`
  const stale = status.clustersStale > 0 ? ` ${count(status.clustersStale, 'cluster')} silent.` : ''
  if (status.verdict === 'not-safe') return { tone: 'bad', word: 'Not safe', sentence: `${bad(status)} of ${all}.${stale}` }
  if (status.verdict !== 'safe') {
    const why = status.clusters === 0 ? 'No cluster has connected yet.' : status.backups === 0 ? `${all}: nothing is watched.` : `${bad(status) || 'Something is not known'} of ${all}.${stale}`
    return { tone: 'unknown', word: 'Unknown', sentence: why }
  }
  const suspended = status.backupsByState.suspended ?? 0
  const but = suspended > 0 ? `, ${suspended} suspended` : ''
  if (suspended === status.backups) return { tone: 'unknown', word: 'Unknown', sentence: `All of ${all} are suspended.` }
  if (status.others > 0) return { tone: 'warn', word: 'Backed up', sentence: `${all}${but}. ${count(status.others, 'other matter')} ${status.others === 1 ? 'needs' : 'need'} you.` }
  return { tone: 'ok', word: 'Safe', sentence: `${all}${but}: every one has a good run within its time.` }
}
