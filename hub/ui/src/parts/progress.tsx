import type { RunProgress } from '../wire/contract'
import { age, bytes, number } from '../format'
import { now } from '../state/clock'

/** How far a run has come, and when it should end. */
export function Progress({ of, what }: { of: RunProgress | undefined; what: string }) {
  if (!of) return null
  const parts = [
    of.percent !== undefined && `${of.percent} %`,
    of.step,
    of.bytesDone !== undefined && `${bytes(of.bytesDone)}${of.bytesTotal === undefined ? '' : ` of ${bytes(of.bytesTotal)}`}`,
    of.filesDone !== undefined && `${number(of.filesDone)}${of.filesTotal === undefined ? '' : ` of ${number(of.filesTotal)}`} files`,
    of.estimatedCompletion !== undefined && `ends ${age(of.estimatedCompletion, now.value)}`,
  ].filter(Boolean)
  return (
    <div class="progress">
      <progress aria-label={what} max={100} value={of.percent} />
      <span class="small">{parts.join(' · ')}</span>
    </div>
  )
}
