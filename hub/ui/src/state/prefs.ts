// What a person has chosen for this browser.
import { effect, signal } from '@preact/signals'

export type Theme = 'system' | 'light' | 'dark'

function kept<T extends string>(name: string, values: readonly T[]): T {
  const value = localStorage.getItem(`fleet.${name}`) as T
  return values.includes(value) ? value : values[0]!
}

export const theme = signal<Theme>(kept('theme', ['system', 'light', 'dark']))
export const zone = signal<'local' | 'utc'>(kept('zone', ['local', 'utc']))
export const keys = signal<'on' | 'off'>(kept('keys', ['on', 'off']))

export function start(): void {
  effect(() => {
    localStorage.setItem('fleet.theme', theme.value)
    document.documentElement.dataset.theme = theme.value
  })
  effect(() => localStorage.setItem('fleet.zone', zone.value))
  effect(() => localStorage.setItem('fleet.keys', keys.value))
}
