// Times, sizes and identifiers as people read them.
import type { BackupRun } from './wire/contract'
import { zone } from './state/prefs'

const UNITS: [number, string][] = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1000, 's'],
]

/** "3 h", "2 d", "0 s": the largest unit of which there are two, so that it is never off by half. */
export function span(millis: number): string {
  const left = Math.max(0, millis)
  for (const [unit, name] of UNITS) {
    if (left >= unit * 2 || unit === 1000) return `${Math.floor(left / unit)} ${name}`
  }
  return '0 s'
}

/** Times that are ahead by less than this are of now. */
const JITTER = 10_000

export function age(at: number | undefined, now: number): string {
  if (at === undefined) return 'never'
  const passed = now - at
  // The page's idea of the hub's time is as old as the last answer.
  return passed < -JITTER ? `in ${span(-passed)}` : `${span(passed)} ago`
}

const pad = (n: number) => String(n).padStart(2, '0')

/** "2026-11-26 17:03" in the zone that was chosen. */
export function moment(at: number | undefined, seconds = false): string {
  if (at === undefined) return '–'
  const date = new Date(at)
  const utc = zone.value === 'utc'
  const part = (local: number, universal: number) => pad(utc ? universal : local)
  const day = `${utc ? date.getUTCFullYear() : date.getFullYear()}-${part(date.getMonth() + 1, date.getUTCMonth() + 1)}-${part(date.getDate(), date.getUTCDate())}`
  const time = `${part(date.getHours(), date.getUTCHours())}:${part(date.getMinutes(), date.getUTCMinutes())}`
  return `${day} ${time}${seconds ? `:${part(date.getSeconds(), date.getUTCSeconds())}` : ''}${utc ? 'Z' : ''}`
}

/** When a day such as "2026-11-26" ends in the zone that was chosen; undefined for what is no day. */
export function endOf(day: string): number | undefined {
  const date = new Date(`${day}T00:00${zone.value === 'utc' ? 'Z' : ''}`)
  if (zone.value === 'utc') date.setUTCDate(date.getUTCDate() + 1)
  else date.setDate(date.getDate() + 1)
  return Number.isNaN(date.getTime()) ? undefined : date.getTime()
}

/** "18.4 GiB". */
export function bytes(size: number | undefined): string {
  if (size === undefined) return '–'
  let left = size
  for (const unit of ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']) {
    if (Math.abs(left) < 1024 || unit === 'PiB') return `${left < 10 && unit !== 'B' ? left.toFixed(1) : Math.round(left)} ${unit}`
    left /= 1024
  }
  return '–'
}

/** "+18.4 GiB": what was added, or removed, in some time. */
export function change(size: number | undefined): string {
  return size === undefined || size === 0 ? bytes(size) : `${size > 0 ? '+' : '−'}${bytes(Math.abs(size))}`
}

const FACTORS: Record<string, number> = { '': 1, B: 1, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, PB: 1e15, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, PiB: 2 ** 50 }

/** Bytes of a size as the command line takes it, such as "10TiB" or "500 GB"; undefined for what is none. */
export function size(text: string): number | undefined {
  const parts = /^(\d+)\s*(\w*)$/.exec(text.trim())
  const count = Number(parts?.[1]) * (FACTORS[parts?.[2] ?? ''] ?? NaN)
  return count > 0 && count <= Number.MAX_SAFE_INTEGER ? count : undefined
}

/** The first 8 digits of an id. */
export function short(id: string): string {
  return id.slice(0, 8)
}

export function number(n: number | undefined): string {
  return n === undefined ? '–' : n.toLocaleString('en')
}

/** A value for the command line, quoted where a shell would read more into it. */
export function shell(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

/** A figure of a run; of one that did not come to its end a zero is not known. */
export function figure(run: BackupRun | undefined, name: 'bytesAdded' | 'bytesProcessed' | 'filesProcessed'): number | undefined {
  return run && (run.result === 'succeeded' || run.snapshotId || run[name] > 0) ? run[name] : undefined
}
