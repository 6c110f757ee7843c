// What is shown while there is no answer, beside an error, and when there is nothing.
import type { ComponentChildren } from 'preact'
import type { Refused } from '../wire/grpc'
import type { Asked } from '../state/ask'
import { moment } from '../format'
import { Sign } from './state'

/** What an answer shows, with what is wrong with it above. */
export function Panel<T>({ asked, rows = 4, children }: { asked: Asked<T>; rows?: number; children: (data: T) => ComponentChildren }) {
  const { data, error, at } = asked
  if (data === undefined) return error ? <Failed error={error} /> : <Skeleton rows={rows} />
  return (
    <>
      {error && <Failed error={error} since={at} />}
      {children(data)}
    </>
  )
}

const NEXT: Partial<Record<string, string>> = {
  unavailable: 'Check that the hub runs and that this machine reaches it. The page asks again by itself.',
  'deadline-exceeded': 'The hub may be busy. The page asks again by itself.',
  unimplemented: 'The hub is older than this page: reload it.',
}

function title(error: Refused): string {
  if (error.code === 'permission-denied') return 'You may not see this'
  if (error.code === 'not-found') return 'There is no such thing'
  if (error.code === 'invalid-argument') return 'The hub does not understand this question'
  return 'The hub did not answer'
}

/** What went wrong, why, and what to do. `since`: what stands below is of that time. */
export function Failed({ error, since }: { error: Refused; since?: number }) {
  return (
    <div class="notice bad" role="alert">
      <Sign tone="bad" />
      <div>
        <strong>{title(error)}</strong>
        <p>{error.message}</p>
        {NEXT[error.code] && <p>{NEXT[error.code]}</p>}
        {since !== undefined && <p>What is shown is of {moment(since, true)}.</p>}
        <p class="muted small">{error.code}</p>
      </div>
    </div>
  )
}

export function Skeleton({ rows }: { rows: number }) {
  return (
    <div class="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, n) => (
        <div key={n} />
      ))}
    </div>
  )
}

/** Nothing is there: what would be, and how it comes. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p>
        <strong>{title}</strong>
      </p>
      {children}
    </div>
  )
}

export function Notice({ tone, children }: { tone: 'bad' | 'warn' | 'unknown' | 'run' | 'ok'; children: ComponentChildren }) {
  return (
    <div class={`notice ${tone}`}>
      <Sign tone={tone} />
      <div>{children}</div>
    </div>
  )
}
