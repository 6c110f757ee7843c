import { useEffect, useRef, useState } from 'preact/hooks'
import { go, query, withQuery } from '../route'
import { states, word, type Words } from '../words'
import { State } from './state'

/** Waits so long for the next key before it asks. */
const TYPING = 200

/** A text, and states to choose from; both are in the address. */
export function Filter({ label, words, counts }: { label: string; words?: Words; counts?: Record<string, number> }) {
  const given = query('q')
  const [text, setText] = useState(given)
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined)
  useEffect(() => setText(given), [given])
  // What was typed last is of this screen, not of the next one.
  useEffect(() => () => clearTimeout(timer.current), [])
  const typed = (value: string) => {
    setText(value)
    clearTimeout(timer.current)
    timer.current = setTimeout(() => go(withQuery({ q: value, after: '' }), true), TYPING)
  }
  return (
    <div class="filter" role="search">
      <input
        type="search"
        data-filter
        aria-label={label}
        placeholder={label}
        value={text}
        onInput={(event) => typed(event.currentTarget.value)}
      />
      {words && <States words={words} counts={counts} />}
      {['cluster', 'namespace'].map((name) => query(name) && <Narrowed key={name} name={name} />)}
    </div>
  )
}

/** The states of the filter. */
export function chosen(): string[] {
  return query('state').split(',').filter(Boolean)
}

function States({ words, counts }: { words: Words; counts: Record<string, number> | undefined }) {
  const on = chosen()
  const toggle = (state: string) => {
    const next = on.includes(state) ? on.filter((other) => other !== state) : [...on, state]
    go(withQuery({ state: next.join(','), after: '' }), true)
  }
  // A state that nothing is in is not offered, unless it is chosen.
  const shown = states(words, [...Object.keys(counts ?? {}), ...on]).filter((state) => !counts || counts[state] || on.includes(state))
  return (
    <div class="chips" role="group" aria-label="States">
      {shown.map((state) => (
        <button type="button" key={state} class="chip" aria-pressed={on.includes(state)} onClick={() => toggle(state)}>
          <State of={word(words, state)} />
          {counts && <span class="count">{counts[state] ?? 0}</span>}
        </button>
      ))}
    </div>
  )
}

function Narrowed({ name }: { name: string }) {
  return (
    <button type="button" class="chip" onClick={() => go(withQuery({ [name]: '', after: '' }), true)}>
      {name} {query(name)} <span aria-hidden="true">×</span>
      <span class="hidden">remove this filter</span>
    </button>
  )
}
