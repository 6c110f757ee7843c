// What a screen asks the hub. The last answer stays, with its time: a screen that is opened again shows it at once, and an
// error stands beside it, never in its place.
import { effect, signal, type Signal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { Refused } from '../wire/grpc'
import { heard, hubNow } from './clock'
import { paused, pulse } from './live'
import { lost, person } from './session'

export interface Asked<T> {
  data?: T
  /** When the answer came, by the hub's clock. */
  at?: number
  error?: Refused
}

interface Kept {
  asked: Signal<Asked<unknown>>
  /** Number of the newest question: answers to earlier ones are dropped. */
  generation: number
  /** Parts of the page that show it: one of them asks for all. */
  users: number
  end?: () => void
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
  if (kept.size >= KEPT_MAX) {
    for (const [old, { users }] of kept) {
      if (users > 0) continue
      kept.delete(old)
      break
    }
  }
  const made: Kept = { asked: signal<Asked<unknown>>({}), generation: 0, users: 0 }
  kept.set(key, made)
  return made
}

// What one person was shown is not there for the next, however the session has ended.
effect(() => {
  if (person.value === null) kept.clear()
})

type Ask<T> = (signal: AbortSignal) => Promise<T>

/** Asks; whether it is to be asked again soon. */
async function run<T>(of: Kept, ask: Ask<T>, stop: AbortSignal): Promise<boolean> {
  const generation = ++of.generation
  try {
    const data = await ask(stop)
    if (generation !== of.generation) return false
    const asOf = (data as { asOf?: number } | undefined)?.asOf
    heard(asOf)
    of.asked.value = { data, at: asOf ?? hubNow() }
    return false
  } catch (error) {
    if (stop.aborted || generation !== of.generation) return false
    lost(error)
    const refused = error instanceof Refused ? error : new Refused('internal', String(error))
    of.asked.value = { ...of.asked.peek(), error: refused }
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
  /** An answer that has come stays true: it is not asked for again. */
  once?: boolean
}

/** Asks, and again when there is a reason to, until the end that is answered. */
function follow<T>(of: Kept, ask: Ask<T>, { every, cluster, once }: Options): () => void {
  const stop = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  let last = 0
  let wait = FIRST_WAIT
  const again = () => {
    clearTimeout(timer)
    timer = undefined
    last = Date.now()
    void run(of, ask, stop.signal).then((failed) => {
      wait = failed ? Math.min(wait * 2, LONGEST_WAIT) : FIRST_WAIT
      if (failed && !stop.signal.aborted) timer ??= setTimeout(again, wait)
    })
  }
  if (!once || of.asked.peek().data === undefined) again()
  let seen = pulse.peek().count
  const end = cluster === undefined ? undefined : pulse.subscribe(({ count, cluster: changed }) => {
    if (count === seen) return
    seen = count
    if (cluster !== '' && changed !== '' && changed !== cluster) return
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
}

/** The answer to a question; `key` names the question with all that it depends on. Asked by several parts of the page it is one. */
export function useAsk<T>(key: string, ask: Ask<T>, options: Options = {}): Asked<T> {
  const { every, cluster, off, once } = options
  useEffect(() => {
    if (off) return
    const of = entry(key)
    if (of.users++ === 0) of.end = follow(of, ask, options)
    return () => {
      if (--of.users === 0) of.end?.()
    }
  }, [key, every, cluster, off, once])
  return entry(key).asked.value as Asked<T>
}

/** Asks again now. */
export async function refresh<T>(key: string, ask: Ask<T>): Promise<void> {
  await run(entry(key), ask, new AbortController().signal)
}
