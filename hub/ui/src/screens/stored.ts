// What is known of the storage of repositories, and its order. Pure.
import type { StorageResponse, StorageRow } from '../wire/contract'

/** Nobody has read its figures. */
export function none(row: StorageRow): boolean {
  return row.storedBytes === undefined
}

/** The sum, unless it is one of nothing. */
export function stored(of: StorageResponse): number | undefined {
  return of.unknown >= of.repositories ? undefined : of.storedBytes
}

const FIGURE: Record<string, (row: StorageRow) => number | undefined> = {
  size: (row) => row.storedBytes,
  growth: (row) => row.growthPerMonth,
}

/** Rows by "name", "size" or "growth", with "-" the other way round. What is not known is last either way. */
export function sorted(rows: StorageRow[], by: string): StorageRow[] {
  const name = by.replace(/^-/, '')
  const way = by.startsWith('-') ? -1 : 1
  const figure = FIGURE[name]
  if (name === 'name') return [...rows].sort((a, b) => way * a.name.localeCompare(b.name))
  if (!figure) return rows
  return [...rows].sort((a, b) => {
    const [x, y] = [figure(a), figure(b)]
    if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined)
    return way * (x - y)
  })
}
