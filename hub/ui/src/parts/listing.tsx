// Lists of the hub, page by page: filter, order and pages are the hub's, and all of it is in the address.
import type { ComponentChildren } from 'preact'
import { FleetView, type Collection, type Filter as Wanted, type Freshness, type Row } from '../wire/contract'
import { go, query, withQuery } from '../route'
import { useAsk } from '../state/ask'
import { count, type Words } from '../words'
import { Export, type Whole } from './export'
import { chosen, Filter } from './filter'
import { Empty, Panel } from './panel'
import { Table, type Column, type Sorting } from './table'

export const PAGE = 50
/** Rows of a page that is fetched for CSV. */
const WHOLE_PAGE = 200
const CSV_MAX = 20_000

/** Where a page begins, and how many rows it has. */
interface Place {
  before: string
  limit: number
}

interface Page<R> {
  asOf: number | undefined
  rows: R[]
  /** Where the next page begins; empty for the last. */
  next: string
}

export type Read<R> = (place: Place, stop?: AbortSignal) => Promise<Page<R>>

async function everything<R>(read: Read<R>): Promise<Whole<R>> {
  const rows: R[] = []
  let before = ''
  do {
    const page = await read({ before, limit: WHOLE_PAGE })
    rows.push(...page.rows)
    before = page.next
  } while (before && rows.length < CSV_MAX)
  return { rows, cut: before !== '' }
}

interface SheetProps<R> {
  /** Of its file. */
  name: string
  caption: string
  columns: Column<R>[]
  rows: R[]
  id: (row: R) => string
  stale?: (row: R) => boolean
  sorting?: Sorting
  next: string
  read: Read<R>
}

/** One page of rows, with the ways to the others and to a file of all. */
export function Sheet<R>({ name, next, read, ...table }: SheetProps<R>) {
  return (
    <>
      <Table {...table} />
      <div class="under">
        <Pages next={next} />
        <Export name={name} columns={table.columns} all={() => everything(read)} />
      </div>
    </>
  )
}

/** A row of a collection with its key. */
export type Keyed<R> = R & { key: string }

export function keyed<R>(rows: Row[], pick: (row: Row) => R | undefined): Keyed<R>[] {
  return rows.flatMap((row) => {
    const of = pick(row)
    return of ? [{ ...of, key: row.key }] : []
  })
}

export const isStale = (row: { freshness?: Freshness }): boolean => row.freshness?.stale ?? false

interface Props<R> {
  collection: Collection
  noun: [string, string]
  words: Words
  counts?: Record<string, number>
  columns: Column<Keyed<R>>[]
  pick: (row: Row) => R | undefined
  empty: ComponentChildren
}

/** The filter of the address. */
export function wanted(): Wanted {
  const list = (name: string) => query(name).split(',').filter(Boolean)
  return { clusters: list('cluster'), namespaces: list('namespace'), states: chosen(), text: query('q') }
}

/** A collection, worst first. */
export function Listing<R extends { freshness?: Freshness }>({ collection, noun, words, counts, columns, pick, empty }: Props<R>) {
  const filter = wanted()
  const sort = query('sort')
  const request = { collection, filter, sort, pageSize: PAGE, pageToken: query('after') }
  const asked = useAsk(`list ${JSON.stringify(request)}`, (stop) => FleetView.list(request, stop), { cluster: '' })
  const filtered = Boolean(filter.text || filter.states.length || filter.clusters.length || filter.namespaces.length)
  const read: Read<Keyed<R>> = async ({ before, limit }, stop) => {
    const page = await FleetView.list({ collection, filter, sort, pageSize: limit, pageToken: before }, stop)
    return { asOf: page.asOf, rows: keyed(page.rows, pick), next: page.nextPageToken }
  }
  return (
    <>
      <Filter label={`Filter ${noun[1]}`} words={words} counts={counts} />
      <Panel asked={asked} rows={8}>
        {(page) => {
          const rows = keyed(page.rows, pick)
          if (rows.length === 0 && query('after')) return <NonePage next={page.nextPageToken} />
          if (rows.length === 0) return filtered ? <NoMatch noun={noun[1]} /> : empty
          return (
            <>
              <p class="total small muted" role="status" title={`revision ${page.revision}`}>
                {count(page.total, ...noun)}
                {filtered ? (page.total === 1 ? ' matches' : ' match') : ''}
              </p>
              <Sheet
                name={noun[1]}
                caption={noun[1]}
                columns={columns}
                rows={rows}
                id={(row) => row.key}
                stale={isStale}
                sorting={{ by: sort, set: (by) => go(withQuery({ sort: by, after: '' }), true) }}
                next={page.nextPageToken}
                read={read}
              />
            </>
          )
        }}
      </Panel>
    </>
  )
}

export function NoMatch({ noun }: { noun: string }) {
  return (
    <Empty title={`No ${noun} match this filter.`}>
      <a href={location.pathname}>Show all {noun}</a>
    </Empty>
  )
}

interface LogProps<R> {
  name: string
  caption: string
  /** The question with all that it depends on, but for the page. */
  about: string
  read: Read<R>
  /** Asks again at this interval, in milliseconds. */
  every: number
  /** A change that the watch tells of may be a row of it. */
  watched?: boolean
  /** What is on an older page has ended: it is asked for once. */
  ended?: boolean
  columns: Column<R>[]
  id: (row: R) => string
  empty: ComponentChildren
}

/** What has happened, newest first. */
export function Log<R>({ about, read, every, watched, ended, empty, ...table }: LogProps<R>) {
  const before = query('after')
  const asked = useAsk(`${about} ${before}`, (stop) => read({ before, limit: PAGE }, stop), ended && before ? {} : { every, cluster: watched ? '' : undefined })
  return (
    <Panel asked={asked} rows={8}>
      {({ rows, next }) => {
        if (rows.length > 0) return <Sheet {...table} rows={rows} next={next} read={read} />
        return next || before ? <NonePage next={next} /> : empty
      }}
    </Panel>
  )
}

/** A page without a row, which says nothing of the others. */
export function NonePage({ next }: { next: string }) {
  return (
    <>
      <Empty title={next ? 'None on this page; there may be more on the next.' : 'There are no more.'} />
      <Pages next={next} />
    </>
  )
}

/** To the next page, and back to the first; the browser goes back one. */
function Pages({ next }: { next: string }) {
  const after = query('after')
  if (!next && !after) return <span />
  return (
    <nav class="pages" aria-label="Pages">
      {after && (
        <>
          <a href={withQuery({ after: '' })}>First page</a>
          <button type="button" class="quiet" data-previous onClick={() => history.back()}>
            Previous
          </button>
        </>
      )}
      {next && (
        <a data-next href={withQuery({ after: next })}>
          Next page
        </a>
      )}
    </nav>
  )
}
