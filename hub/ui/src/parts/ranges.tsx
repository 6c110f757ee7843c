import { go, withQuery } from '../route'

/** How many days back is shown; it is in the address. */
export function Ranges({ all, days }: { all: string[]; days: string }) {
  return (
    <div class="chips" role="group" aria-label="Range">
      {all.map((range) => (
        <button type="button" key={range} class="chip" aria-pressed={range === days} onClick={() => go(withQuery({ days: range }), true)}>
          {range} days
        </button>
      ))}
    </div>
  )
}
