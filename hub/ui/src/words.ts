// Words for the hub's states, and how each is shown. A state that this page does not know is unknown, never good.

export type Tone = 'bad' | 'warn' | 'unknown' | 'run' | 'idle' | 'ok'

export type Words = Record<string, readonly [Tone, string]>

export const BACKUP: Words = {
  failed: ['bad', 'Failed'],
  late: ['bad', 'Late'],
  partial: ['warn', 'Partial'],
  notready: ['warn', 'Not ready'],
  stale: ['unknown', 'Stale'],
  never: ['unknown', 'Never ran'],
  running: ['run', 'Running'],
  suspended: ['idle', 'Suspended'],
  ok: ['ok', 'OK'],
}

export const CLUSTER: Words = {
  banned: ['bad', 'Banned'],
  conflict: ['bad', 'Conflict'],
  refused: ['bad', 'Refused'],
  stale: ['unknown', 'Stale'],
  connected: ['ok', 'Connected'],
}

export const REPOSITORY: Words = {
  unready: ['bad', 'Not ready'],
  stale: ['unknown', 'Stale'],
  degraded: ['warn', 'Degraded'],
  ready: ['ok', 'Ready'],
}

export const PLAN: Words = {
  waiting: ['warn', 'Needs approval'],
  preview: ['run', 'Preview'],
  approved: ['run', 'Approved'],
  granted: ['run', 'Running'],
  rejected: ['idle', 'Rejected'],
  superseded: ['idle', 'Superseded'],
  applied: ['ok', 'Applied'],
}

export const LOCK: Words = {
  delayed: ['warn', 'Delayed'],
  held: ['run', 'Held'],
  granting: ['run', 'Granting'],
  draining: ['run', 'Draining'],
  free: ['ok', 'Free'],
}

export const OPERATION: Words = {
  waiting: ['idle', 'Waiting'],
  sent: ['run', 'Sent'],
  accepted: ['run', 'Accepted'],
  running: ['run', 'Running'],
  done: ['ok', 'Done'],
  failed: ['bad', 'Failed'],
  refused: ['bad', 'Refused'],
  expired: ['warn', 'Expired'],
  cancelled: ['idle', 'Cancelled'],
}

export const BINDING: Words = {
  pending: ['warn', 'Waits for approval'],
  ended: ['idle', 'Ended'],
  bound: ['ok', 'Bound'],
}

/** Outcomes of maintenance. */
export const OUTCOME: Words = {
  Failed: ['bad', 'Failed'],
  Damaged: ['bad', 'Damaged'],
  Interrupted: ['warn', 'Interrupted'],
  ApprovalRequired: ['warn', 'Approval required'],
  Preview: ['run', 'Preview'],
  NothingToRemove: ['ok', 'Nothing to remove'],
  Applied: ['ok', 'Applied'],
  Passed: ['ok', 'Passed'],
}

/** Results of one backup run. */
export const RESULT: Words = {
  failed: ['bad', 'Failed'],
  'partially-failed': ['warn', 'Partial'],
  succeeded: ['ok', 'Succeeded'],
}

/** Rows of restores. */
export const RESTORE_ROW: Words = {
  failed: ['bad', 'Failed'],
  stale: ['unknown', 'Stale'],
  pending: ['idle', 'Pending'],
  running: ['run', 'Restoring'],
  done: ['ok', 'Done'],
}

export const POLICY: Words = {
  failed: ['bad', 'Failed'],
  waiting: ['warn', 'Needs approval'],
  notready: ['warn', 'Not ready'],
  stale: ['unknown', 'Stale'],
  running: ['run', 'Running'],
  never: ['unknown', 'Never ran'],
  suspended: ['idle', 'Suspended'],
  ok: ['ok', 'OK'],
}

/** Claims that no backup covers. */
export const COVERAGE: Words = {
  uncovered: ['bad', 'Uncovered'],
  new: ['warn', 'New'],
  excluded: ['idle', 'Excluded'],
}

/** How what happened has ended. */
export const ACTIVITY: Words = {
  failed: ['bad', 'Failed'],
  partial: ['warn', 'Partial'],
  open: ['run', 'Open'],
  done: ['ok', 'Done'],
}

/** What needs a person. */
export const ATTENTION: Words = {
  ...BACKUP,
  damaged: ['bad', 'Damaged'],
  unready: ['bad', 'Not ready'],
  unproven: ['bad', 'Not in repository'],
  'restore-failed': ['bad', 'Restore failed'],
  'policy-failed': ['bad', 'Retention failed'],
  waiting: ['warn', 'Needs approval'],
  delayed: ['warn', 'Lock delayed'],
}

export function word(words: Words, state: string): readonly [Tone, string] {
  return words[state] ?? ['unknown', state === '' || state === 'unspecified' ? 'Unknown' : state]
}

/** States, worst first; those that are only counted or chosen, which this page does not know, after them. */
export function states(words: Words, others: Iterable<string>): string[] {
  return [...new Set([...Object.keys(words), ...others])]
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString('en')} ${n === 1 ? one : many}`
}
