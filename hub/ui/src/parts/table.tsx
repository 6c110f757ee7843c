// A table that is one for screen readers, and a list of cards on a narrow screen.
import type { ComponentChildren } from 'preact'
import { useRef, useState } from 'preact/hooks'

export interface Column<R> {
  name: string
  /** Name by which the hub sorts; without one the column cannot be sorted by. */
  sort?: string
  /** Aligned to the right, with figures of one width. */
  figures?: boolean
  /** Of one word, which is not broken. */
  short?: boolean
  /** Left out on screens of middle width. */
  wide?: boolean
  cell: (row: R) => ComponentChildren
  /** For CSV. */
  text: (row: R) => string | number
}

export interface Sorting {
  by: string
  set: (by: string) => void
}

interface Props<R> {
  /** What it lists. */
  caption: string
  columns: Column<R>[]
  rows: R[]
  id: (row: R) => string
  sorting?: Sorting
  stale?: (row: R) => boolean
}

export function Table<R>({ caption, columns, rows, id, sorting, stale }: Props<R>) {
  const body = useRef<HTMLTableSectionElement>(null)
  const held = useHeld(rows, id, () => body.current?.contains(document.activeElement) ?? false)
  return (
    <>
      {held.changes > 0 && (
        <button type="button" class="changes" onClick={held.release}>
          {held.changes} {held.changes === 1 ? 'change' : 'changes'} in the order: show
        </button>
      )}
      <table role="table">
        <caption class="hidden">{caption}</caption>
        <thead role="rowgroup">
          <tr role="row">
            {columns.map((column) => (
              <Head key={column.name} column={column} sorting={sorting} />
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup" ref={body}>
          {held.rows.map((row) => (
            <tr role="row" key={id(row)} data-row class={stale?.(row) ? 'old' : undefined}>
              {columns.map((column, n) => (
                <td role="cell" key={column.name} data-label={n === 0 ? undefined : column.name} class={classes(column)}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </>
  )
}

function classes<R>(column: Column<R>): string | undefined {
  const names = [column.figures && 'figures', column.wide && 'wide', column.short && 'short'].filter(Boolean)
  return names.length ? names.join(' ') : undefined
}

function Head<R>({ column, sorting }: { column: Column<R>; sorting: Sorting | undefined }) {
  const { sort } = column
  const order = !sort || !sorting ? undefined : sorting.by === sort ? 'ascending' : sorting.by === `-${sort}` ? 'descending' : 'none'
  return (
    <th role="columnheader" scope="col" class={classes(column)} aria-sort={order}>
      {sort && sorting ? (
        <button type="button" class="sort" onClick={() => sorting.set(order === 'ascending' ? `-${sort}` : sort)}>
          {column.name}
          <span aria-hidden="true">{order === 'ascending' ? ' ↑' : order === 'descending' ? ' ↓' : ''}</span>
        </button>
      ) : (
        column.name
      )}
    </th>
  )
}

/** While the focus is in a table its rows keep their order: what a person is about to press does not move away. */
function useHeld<R>(rows: R[], id: (row: R) => string, focused: () => boolean) {
  const order = useRef<string[]>([])
  const [, again] = useState(0)
  const fresh = rows.map(id)
  const by = new Map(rows.map((row) => [id(row), row]))
  const same = fresh.length === order.current.length && fresh.every((key, n) => key === order.current[n])
  // A page that has nothing in common with the one before is another question's answer.
  const related = order.current.some((key) => by.has(key))
  if (same || !related || order.current.length === 0 || !focused()) {
    order.current = fresh
    return { rows, changes: 0, release: () => {} }
  }
  const changes = fresh.filter((key, n) => key !== order.current[n]).length || 1
  const shown = order.current.flatMap((key) => by.get(key) ?? [])
  const release = () => {
    order.current = []
    again((n) => n + 1)
  }
  return { rows: shown, changes, release }
}
