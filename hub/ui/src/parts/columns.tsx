// Columns that lists of resources share.
import type { ComponentChildren } from 'preact'
import type { Collection, Freshness } from '../wire/contract'
import { to } from '../route'
import { word, type Words } from '../words'
import { State } from './state'
import type { Column } from './table'
import { Ago } from './time'

interface Named {
  cluster: string
  namespace: string
  name: string
}

/** A resource of a namespace, with the way to its screen. */
export function named<R extends Named>(name: string, collection: Collection): Column<R> {
  return {
    name,
    sort: 'name',
    cell: (row) => (
      <>
        <a data-main href={to(collection, row.cluster, row.namespace, row.name)}>
          {row.namespace}/{row.name}
        </a>
        <span class="of muted"> in {row.cluster}</span>
      </>
    ),
    text: (row) => `${row.cluster}/${row.namespace}/${row.name}`,
  }
}

interface Told {
  state: string
  reason: string
  freshness?: Freshness
}

/** The state and its reason; of a silent cluster also how old that is. `more` stands below. */
export function told<R extends Told>(words: Words, more?: (row: R) => ComponentChildren): Column<R> {
  return {
    name: 'State',
    sort: 'state',
    cell: (row) => (
      <>
        <State of={word(words, row.state)} stale={row.freshness?.stale} />
        {row.reason && <p class="reason muted">{row.reason}</p>}
        {row.freshness?.stale && (
          <p class="reason muted">
            heard <Ago at={row.freshness.lastHeard} />
          </p>
        )}
        {more?.(row)}
      </>
    ),
    text: (row) => row.state + (row.reason && `: ${row.reason}`),
  }
}

interface Stored {
  resticId: string
  repositoryName: string
}

/** The repository, with the way to its screen once its id is known. */
export function Repository({ of }: { of: Stored | undefined }) {
  return of?.resticId ? <a href={to('repositories', of.resticId)}>{of.repositoryName}</a> : <>{of?.repositoryName}</>
}

export function repository<R>(of: (row: R) => Stored | undefined): Column<R> {
  return { name: 'Repository', wide: true, cell: (row) => <Repository of={of(row)} />, text: (row) => of(row)?.repositoryName ?? '' }
}
