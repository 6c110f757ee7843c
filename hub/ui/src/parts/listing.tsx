// One of the hub's three collections: filter, order and pages are the hub's, and all of it is in the address.
import type { ComponentChildren } from 'preact'
import { FleetView, type Collection, type Filter as Wanted, type Row } from '../wire/contract'
import { go, query, withQuery } from '../route'
import { useAsk } from '../state/ask'
import { count, word } from '../words'
import { Export } from './export'
import { chosen, Filter } from './filter'
import { Panel } from './panel'
import { Table, type Column } from './table'

const PAGE = 50
/** Rows of a page that is fetched for CSV. */
const WHOLE_PAGE = 200
const CSV_MAX = 20_000

interface Props<R> {
  collection: Collection
  noun: [string, string]
  words: Parameters<typeof word>[0]
  counts?: Record<string, number>
  columns: Column<R>[]
  pick: (row: Row) => R | undefined
  id: (row: R) => string
  stale: (row: R) => boolean
  empty: ComponentChildren
}

function wanted(): Wanted {
  const list = (name: string) => query(name).split(',').filter(Boolean)
  return { clusters: list('cluster'), namespaces: list('namespace'), states: chosen(), text: query('q') }
}

export function Listing<R>({ collection, noun, words, counts, columns, pick, id, stale, empty }: Props<R>) {
  const filter = wanted()
  const sort = query('sort')
  const after = query('after')
  const request = { collection, filter, sort, pageSize: PAGE, pageToken: after }
  const asked = useAsk(`list ${JSON.stringify(request)}`, (stop) => FleetView.list(request, stop), { cluster: '' })
  const filtered = Boolean(filter.text || filter.states.length || filter.clusters.length || filter.namespaces.length)
  const all = async () => {
    const rows: R[] = []
    let pageToken = ''
    do {
      const page = await FleetView.list({ ...request, pageSize: WHOLE_PAGE, pageToken })
      rows.push(...page.rows.flatMap((row) => pick(row) ?? []))
      pageToken = page.nextPageToken
    } while (pageToken && rows.length < CSV_MAX)
    return rows
  }
  return (
    <>
      <Filter label={`Filter ${noun[1]}`} words={words} counts={counts} />
      <Panel asked={asked} rows={8}>
        {(page) => {
          const rows = page.rows.flatMap((row) => pick(row) ?? [])
          if (rows.length === 0) return filtered ? <NoMatch noun={noun[1]} /> : empty
          return (
            <>
              <p class="total small muted" role="status" title={`revision ${page.revision}`}>
                {count(page.total, ...noun)}
                {filtered ? (page.total === 1 ? ' matches' : ' match') : ''}
              </p>
              <Table caption={noun[1]} columns={columns} rows={rows} id={id} stale={stale} sorting={{ by: sort, set: (by) => go(withQuery({ sort: by, after: '' }), true) }} />
              <div class="under">
                <Pages next={page.nextPageToken} />
                <Export name={noun[1]} columns={columns} all={all} />
              </div>
            </>
          )
        }}
      </Panel>
    </>
  )
}

function NoMatch({ noun }: { noun: string }) {
  return (
    <div class="empty">
      <p>
        <strong>No {noun} match this filter.</strong>
      </p>
      <a href={location.pathname}>Show all {noun}</a>
    </div>
  )
}

/** To the next page, and back to the first; the browser goes back one. */
export function Pages({ next }: { next: string }) {
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
