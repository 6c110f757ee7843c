import type { Tone } from '../words'

const SHAPES: Record<Tone, string> = {
  bad: 'M5 1h6l4 4v6l-4 4H5l-4-4V5zM5.5 5.5l5 5M10.5 5.5l-5 5',
  warn: 'M8 1.5 15 14.5H1zM8 6v4M8 12v.5',
  unknown: 'M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1zM6 6.2C6 3.8 10 3.9 10 6.3 10 7.8 8 7.8 8 9.5M8 11.5v.5',
  run: 'M13.5 8a5.5 5.5 0 1 1-2-4.2M12 1v3.2H8.8',
  idle: 'M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1zM6.2 5.5v5M9.8 5.5v5',
  ok: 'M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1zM4.8 8.3l2.2 2.2 4.3-4.6',
}

/** The sign of a tone: a shape of its own for each, since colour alone says nothing to many. */
export function Sign({ tone }: { tone: Tone }) {
  return (
    <svg class={`sign ${tone}`} viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      <path d={SHAPES[tone]} fill="none" stroke="currentColor" stroke-width="1.6" stroke-linejoin="round" stroke-linecap="round" />
    </svg>
  )
}

/** A state in a word. What is stale keeps its word and loses its colour. */
export function State({ of: [tone, text], stale = false }: { of: readonly [Tone, string]; stale?: boolean }) {
  const shown = stale ? 'unknown' : tone
  return (
    <span class={`state ${shown}`}>
      <Sign tone={shown} />
      {stale && text !== 'Stale' ? `${text}, stale` : text}
    </span>
  )
}
