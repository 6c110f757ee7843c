// Who did what, and when.
import { FleetView, type Decision } from '../wire/contract'
import { moment, shell } from '../format'
import { go, query, withQuery } from '../route'
import { Command } from '../parts/command'
import { Log } from '../parts/listing'
import { Empty } from '../parts/panel'
import { Screen } from '../parts/screen'
import type { Column } from '../parts/table'
import { Ago } from '../parts/time'

const EVERY = 10_000

const COLUMNS: Column<Decision>[] = [
  { name: 'Entry', figures: true, cell: (of) => (String(of.id) === query('entry') ? <mark>{of.id}</mark> : of.id), text: (of) => of.id },
  { name: 'When', cell: (of) => <><Ago at={of.at} /> <span class="small muted of">{moment(of.at, true)}</span></>, text: (of) => moment(of.at, true) },
  { name: 'Who', cell: (of) => <a data-id href={withQuery({ who: of.who, after: '' })}>{of.who}</a>, text: (of) => of.who },
  { name: 'What', cell: (of) => <a data-id href={withQuery({ what: of.what, after: '' })}>{of.what}</a>, text: (of) => of.what },
  { name: 'About', cell: (of) => of.subject, text: (of) => of.subject },
  { name: 'Before', wide: true, cell: (of) => of.before, text: (of) => of.before },
  { name: 'After', wide: true, cell: (of) => of.after, text: (of) => of.after },
]

export default function Audit() {
  const [who, what, cluster] = [query('who'), query('what'), query('cluster')]
  const request = { who, what, cluster }
  const flags = [['who', who], ['what', what], ['cluster', cluster]].filter(([, value]) => value)
  return (
    <Screen title="Audit">
      <div class="filter">
        {flags.map(([name, value]) => (
          <button type="button" key={name} class="chip" onClick={() => go(withQuery({ [name!]: '', after: '' }), true)}>
            {name} {value} <span aria-hidden="true">×</span>
            <span class="hidden">remove this filter</span>
          </button>
        ))}
      </div>
      <Log
        name="audit"
        caption="What people did, newest first"
        about={`audit ${JSON.stringify(request)}`}
        read={async (place, stop) => {
          const { asOf, decisions, nextBefore } = await FleetView.audit({ ...request, ...place }, stop)
          return { asOf, rows: decisions, next: nextBefore }
        }}
        every={EVERY}
        ended
        columns={COLUMNS}
        id={(of) => String(of.id)}
        empty={<Empty title={flags.length > 0 ? 'No entry matches.' : 'Nobody has decided anything yet.'}>{flags.length > 0 && <a href="/audit">Show all entries</a>}</Empty>}
      />
      <Command text={['fleet audit', ...flags.map(([name, value]) => `--${name} ${shell(value!)}`)].join(' ')} />
    </Screen>
  )
}
