// The answer of a screen in one word and one sentence, and as of when.
import { moment } from '../format'
import { late } from '../state/live'
import type { Tone } from '../words'
import { Sign } from './state'

interface Props {
  of: { tone: Tone; word: string; sentence: string }
  asOf: Parameters<typeof moment>[0]
  /** The hub could not say whether it is still so. */
  old: boolean
}

export function Verdict({ of, asOf, old }: Props) {
  const tone = old || late.value ? 'unknown' : of.tone
  return (
    <div class={`verdict ${tone}`}>
      <Sign tone={tone} />
      <div>
        <p class="word" aria-live="polite">
          {of.word}
        </p>
        <p>{of.sentence}</p>
        <p class="small muted">as of {moment(asOf, true)}</p>
      </div>
    </div>
  )
}
