// What a screen asks the hub. The last answer stays, with its time: a screen that is opened again shows it at once, and an
// error stands beside it, never in its place.
import { signal, type Signal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { Refused } from '../wire/grpc'
import { heard, hubNow } from './clock'
import { paused, pulse } from './live'
import { lost } from './session'

export interface Asked<T> {
  data?: T
  /** When the answer came, by the hub's clock. */
  at?: number
  error?: Refused
  busy: boolean
}

interface Kept {
  asked: Signal<Asked<unknown>>
  /** Number of the newest question: answers to earlier ones are dropped. */
  generation: number
}

const KEPT_MAX = 60
const kept = new Map<string, Kept>()
/** At least so long between two questions because of changes. */
const PAUSE = 1000
/** A hub that did not answer is asked again after this time, doubled each time. */
const FIRST_WAIT = 1000
const LONGEST_WAIT = 30_000

function entry(key: string): Kept {
  const known = kept.get(key)
  if (known) return known
  if (kept.size >= KEPT_MAX) kept.delete(kept.keys().next().value!)
  const made = { asked: signal<Asked<unknown>>({ busy: true }), generation: 0 }
  kept.set(key, made)
  return made
}

/** Forgets everything, for the next person. */
export function forget(): void {
  kept.clear()
}

/** Asks; whether it is to be asked again soon. */
async function run<T>(key: string, ask: (signal: AbortSignal) => Promise<T>, stop: AbortSignal): Promise<boolean> {
  const of = entry(key)
  const generation = ++of.generation
  of.asked.value = { ...of.asked.peek(), busy: true }
  try {
    const data = await ask(stop)
    if (generation !== of.generation) return false
    const asOf = (data as { asOf?: number } | undefined)?.asOf
    heard(asOf)
    of.asked.value = { data, at: asOf ?? hubNow(), busy: false }
    return false
  } catch (error) {
    if (stop.aborted || generation !== of.generation) return false
    lost(error)
    const refused = error instanceof Refused ? error : new Refused('internal', String(error))
    of.asked.value = { ...of.asked.peek(), error: refused, busy: false }
    return refused.code === 'unavailable' || refused.code === 'deadline-exceeded'
  }
}

export interface Options {
  /** Asks again at this interval in milliseconds, for what the watch says nothing about. */
  every?: number
  /** Asks again when something has changed in this cluster; '' is any. */
  cluster?: string
  /** Does not ask at all. */
  off?: boolean
}

/** The answer to a question; `key` names the question with all that it depends on. */
export function useAsk<T>(key: string, ask: (signal: AbortSignal) => Promise<T>, options: Options = {}): Asked<T> {
  const { every, cluster, off } = options
  useEffect(() => {
    if (off) return
    const stop = new AbortController()
    let timer: ReturnType<typeof setTimeout> | undefined
    let last = 0
    let wait = FIRST_WAIT
    const again = () => {
      clearTimeout(timer)
      timer = undefined
      last = Date.now()
      void run(key, ask, stop.signal).then((failed) => {
        wait = failed ? Math.min(wait * 2, LONGEST_WAIT) : FIRST_WAIT
        if (failed && !stop.signal.aborted) timer ??= setTimeout(again, wait)
      })
    }
    again()
    let seen = pulse.peek().count
    const end = cluster === undefined ? undefined : pulse.subscribe(({ count, cluster: of }) => {
      if (count === seen) return
      seen = count
      if (cluster !== '' && of !== '' && of !== cluster) return
      timer ??= setTimeout(again, Math.max(100, PAUSE - (Date.now() - last)))
    })
    const ticking = every === undefined ? undefined : setInterval(() => {
      if (!document.hidden && !paused.peek()) again()
    }, every)
    return () => {
      stop.abort()
      clearTimeout(timer)
      clearInterval(ticking)
      end?.()
    }
  }, [key, every, cluster, off])
  return entry(key).asked.value as Asked<T>
}

/** Asks again now. */
export async function refresh<T>(key: string, ask: (signal: AbortSignal) => Promise<T>): Promise<void> {
  await run(key, ask, new AbortController().signal)
}
