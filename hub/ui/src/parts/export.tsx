// What is shown, as CSV or on paper: all rows of the filter, not only those of the page.
import { useState } from 'preact/hooks'
import { count } from '../words'
import type { Column } from './table'

function quoted(value: string | number): string {
  // A spreadsheet would run a text that begins like a formula.
  const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value)
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

export function csv<R>(columns: Column<R>[], rows: R[]): string {
  const lines = rows.map((row) => columns.map((column) => quoted(column.text(row))).join(','))
  return [columns.map((column) => quoted(column.name)).join(','), ...lines, ''].join('\r\n')
}

/** Saves bytes as a file of this name. */
export function save(name: string, content: BlobPart[], type: string): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob(content, { type }))
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}

export interface Whole<R> {
  rows: R[]
  /** There are more. */
  cut?: boolean
}

export function Export<R>({ name, columns, all }: { name: string; columns: Column<R>[]; all: () => Promise<Whole<R>> }) {
  const [state, setState] = useState('')
  const download = async () => {
    setState('Reading all rows…')
    try {
      const { rows, cut } = await all()
      save(`${name}.csv`, [csv(columns, rows)], 'text/csv')
      setState(cut ? `The file has ${count(rows.length, 'row')}; there are more` : '')
    } catch (error) {
      setState(`Not all rows could be read: ${(error as Error).message}`)
    }
  }
  return (
    <span class="export">
      <button type="button" onClick={download}>
        CSV
      </button>
      <button type="button" onClick={() => print()}>
        Print
      </button>
      <span class="small muted" role="status">
        {state}
      </span>
    </span>
  )
}
