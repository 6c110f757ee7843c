// The last 30 days of a backup: one cell a day, with a shape for each result; the same in words for who does not see it.
import type { RunDay } from '../wire/contract'
import { now } from '../state/clock'
import { count, type Tone } from '../words'

const DAY = 86_400_000
const DAYS = 30

interface Cell {
  day: number
  tone: Tone
  words: string
}

/** Each of the last 30 days, UTC, oldest first. Of days after `heard`, when a silent cluster was heard last, nothing is known. */
export function cells(days: RunDay[], time: number, heard = time): Cell[] {
  const today = Math.floor(time / DAY)
  const by = new Map(days.map((day) => [Math.floor((day.day ?? 0) / DAY), day]))
  return Array.from({ length: DAYS }, (_, n) => {
    const day = today - DAYS + 1 + n
    const runs = by.get(day)
    if (!runs) return day > Math.floor(heard / DAY) ? { day: day * DAY, tone: 'unknown', words: 'not known' } : { day: day * DAY, tone: 'idle', words: 'no run' }
    const tone: Tone = runs.failed > 0 ? 'bad' : runs.partial > 0 ? 'warn' : runs.succeeded > 0 ? 'ok' : 'unknown'
    const parts = [runs.succeeded > 0 && `${runs.succeeded} good`, runs.partial > 0 && `${runs.partial} partial`, runs.failed > 0 && `${runs.failed} failed`]
    return { day: day * DAY, tone, words: parts.filter(Boolean).join(', ') || 'not known' }
  })
}

export function Strip({ days, heard }: { days: RunDay[]; heard: number | undefined }) {
  const all = cells(days, now.value, heard)
  const of = (tone: Tone) => all.filter((cell) => cell.tone === tone).length
  const label = `Last 30 days: ${count(of('ok'), 'day')} good, ${of('warn')} partial, ${of('bad')} with a failed run, ${of('idle')} without a run${of('unknown') > 0 ? `, ${of('unknown')} not known` : ''}`
  return (
    <div class="strip">
      <div role="img" aria-label={label}>
        {all.map((cell) => (
          <span key={cell.day} class={cell.tone} title={`${new Date(cell.day).toISOString().slice(0, 10)}: ${cell.words}`} />
        ))}
      </div>
      <p class="small muted">{label}</p>
    </div>
  )
}
