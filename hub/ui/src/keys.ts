// Keys for those who do not use a mouse: all of them do what a link or a button does as well.
import { signal } from '@preact/signals'
import { go } from './route'
import { keys } from './state/prefs'

/** After "g": where to. */
export const GO: Record<string, [string, string]> = {
  o: ['/', 'Overview'],
  b: ['/backups', 'Backups'],
  v: ['/coverage', 'Coverage'],
  r: ['/repositories', 'Repositories'],
  d: ['/storage', 'Storage'],
  c: ['/clusters', 'Clusters'],
  s: ['/snapshots', 'Snapshots'],
  e: ['/restores', 'Restores'],
  t: ['/policies', 'Retention'],
  p: ['/plans', 'Plans'],
  l: ['/locks', 'Locks'],
  a: ['/activity', 'Activity'],
  u: ['/audit', 'Audit'],
  h: ['/health', 'Hub'],
}

/** The list of keys is shown. */
export const help = signal(false)

const CHORD = 1000
let since = 0

function rows(): HTMLElement[] {
  return [...document.querySelectorAll<HTMLElement>('[data-row]')].flatMap((row) => row.querySelector<HTMLElement>('a, button') ?? [])
}

function move(by: number): void {
  const all = rows()
  const at = all.findIndex((link) => link.closest('[data-row]')?.contains(document.activeElement))
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)]
  next?.focus()
  next?.scrollIntoView({ block: 'nearest' })
}

function press(selector: string): void {
  document.querySelector<HTMLElement>(selector)?.click()
}

function act(key: string): boolean {
  if (Date.now() - since < CHORD) {
    since = 0
    const to = GO[key]
    if (to) go(to[0])
    return to !== undefined
  }
  if (key === 'g') since = Date.now()
  else if (key === '/') document.querySelector<HTMLElement>('[data-filter]')?.focus()
  else if (key === 'j') move(1)
  else if (key === 'k') move(-1)
  else if (key === '[') press('[data-previous]')
  else if (key === ']') press('[data-next]')
  else if (key === '?') help.value = true
  else return false
  return true
}

export function listen(): void {
  document.addEventListener('keydown', (event) => {
    const target = event.target as HTMLElement
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) && (target as HTMLInputElement).type !== 'checkbox'
    if (event.key === 'Escape' && typing) target.blur()
    if (keys.value === 'off' || typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return
    if (act(event.key)) event.preventDefault()
  })
}
