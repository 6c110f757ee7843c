// One watch per tab. It says that something has changed, of which cluster, and that the hub is there; screens ask again
// for what they show, so that filter, order and counts are always the hub's, of one revision.
import { computed, effect, signal } from '@preact/signals'
import { FleetView } from '../wire/contract'
import { Refused } from '../wire/grpc'
import { heard, hubNow, now } from './clock'
import { lost, person } from './session'

/** The hub sends a heartbeat every 10 s: two missed, and what is shown may be old. */
const LATE = 25_000
const FIRST_WAIT = 1000
const LONGEST_WAIT = 15_000
/** A tab that is hidden for longer closes its watch: browsers allow few connections. */
const HIDDEN = 60_000

/** When the hub was last heard of, by its clock; 0 before the first time. */
export const lastHeard = signal(0)
/** A person has stopped updates. */
export const paused = signal(false)
export const late = computed(() => lastHeard.value > 0 && now.value - lastHeard.value > LATE)

/** Rises with each change; `cluster` is of whom, empty for all. */
export const pulse = signal({ count: 0, cluster: '' })

function beat(cluster: string): void {
  pulse.value = { count: pulse.value.count + 1, cluster }
}

async function watch(stop: AbortSignal): Promise<void> {
  let complete = false
  for await (const event of FleetView.watch({ collection: 'clusters' }, stop)) {
    heard(event.asOf)
    lastHeard.value = event.asOf ?? hubNow()
    if (event.bookmark) {
      complete = true
      // What changed while the watch was away is not known.
      beat('')
    } else if (complete && (event.upsert || event.removed !== undefined)) beat(event.upsert?.key ?? event.removed ?? '')
  }
}

async function keep(stop: AbortSignal): Promise<void> {
  let wait = FIRST_WAIT
  while (!stop.aborted) {
    const began = Date.now()
    try {
      await watch(stop)
    } catch (error) {
      if (stop.aborted) return
      lost(error)
      // Whom the hub does not know, or who may see nothing, need not ask again and again.
      if (error instanceof Refused && ['unauthenticated', 'permission-denied'].includes(error.code)) wait = LONGEST_WAIT
    }
    if (Date.now() - began > LONGEST_WAIT) wait = FIRST_WAIT
    await new Promise((done) => setTimeout(done, wait * (0.7 + 0.6 * Math.random())))
    wait = Math.min(wait * 2, LONGEST_WAIT)
  }
}

/** Watches while somebody is logged in and the tab is seen. */
export function start(): void {
  const hidden = signal(document.hidden)
  let timer: ReturnType<typeof setTimeout> | undefined
  document.addEventListener('visibilitychange', () => {
    clearTimeout(timer)
    if (document.hidden) timer = setTimeout(() => (hidden.value = true), HIDDEN)
    else hidden.value = false
  })
  const wanted = computed(() => Boolean(person.value) && !hidden.value && !paused.value)
  effect(() => {
    if (!wanted.value) return
    const stop = new AbortController()
    void keep(stop.signal)
    return () => stop.abort()
  })
}
