// Where the page is: path and query of its address. Everything that a screen shows is in its address, so it can be shared.
import { computed, signal } from '@preact/signals'

export const address = signal(new URL(location.href))
/** Parts of the path, decoded. */
export const path = computed(() => address.value.pathname.split('/').filter(Boolean).map(decode))

function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** Goes to an address of this page. */
export function go(to: string, replace = false): void {
  const url = new URL(to, location.href)
  if (replace) history.replaceState(null, '', url)
  else history.pushState(null, '', url)
  address.value = url
  if (!replace) window.scrollTo(0, 0)
}

/** The present address with other values in its query; an empty one is left out. */
export function withQuery(changes: Record<string, string>): string {
  const url = new URL(address.value)
  for (const [name, value] of Object.entries(changes)) {
    if (value === '') url.searchParams.delete(name)
    else url.searchParams.set(name, value)
  }
  return url.pathname + url.search
}

export function query(name: string): string {
  return address.value.searchParams.get(name) ?? ''
}

/** A path of these parts. */
export function to(...parts: string[]): string {
  return '/' + parts.map(encodeURIComponent).join('/')
}

/** Links within the page change the address without loading it again. */
export function listen(): void {
  addEventListener('popstate', () => (address.value = new URL(location.href)))
  document.addEventListener('click', (event) => {
    const link = (event.target as Element).closest?.('a')
    if (!link || event.defaultPrevented || event.button !== 0) return
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    if (link.origin !== location.origin || link.target || link.hasAttribute('download')) return
    // A jump within the screen is the browser's.
    if (link.hash && link.pathname === location.pathname && link.search === location.search) return
    event.preventDefault()
    go(link.href)
  })
}
