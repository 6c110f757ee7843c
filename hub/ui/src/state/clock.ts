// Time as the hub has it: ages are differences of two times of its clock, whatever this machine's clock shows.
import { signal } from '@preact/signals'

/** The hub's clock minus this machine's. */
let offset = 0

/** The hub's time, in milliseconds since 1970; ticks every 5 s. */
export const now = signal(Date.now())

/** The hub has just answered with its time. */
export function heard(asOf: number | undefined): void {
  if (!asOf) return
  offset = asOf - Date.now()
  tick()
}

export function hubNow(): number {
  return Date.now() + offset
}

function tick(): void {
  now.value = hubNow()
}

export function start(): void {
  setInterval(() => {
    if (!document.hidden) tick()
  }, 5000)
  document.addEventListener('visibilitychange', tick)
}
