import { age, moment } from '../format'
import { now } from '../state/clock'

/** How long ago a time is; the time itself on hover and in the document. */
export function Ago({ at, never = 'never' }: { at: number | undefined; never?: string }) {
  if (at === undefined) return <span class="muted">{never}</span>
  return (
    <time class="ago" dateTime={new Date(at).toISOString()} title={moment(at, true)}>
      {age(at, now.value)}
    </time>
  )
}

/** A time, and how long ago it is. */
export function At({ at, never = '–' }: { at: number | undefined; never?: string }) {
  if (at === undefined) return <span class="muted">{never}</span>
  return (
    <time dateTime={new Date(at).toISOString()}>
      {moment(at)} <span class="muted">({age(at, now.value)})</span>
    </time>
  )
}
