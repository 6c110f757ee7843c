// Who did what, and when.
import { FleetView, type Decision } from '../wire/contract'
import { moment, shell } from '../format'
import { go, query, withQuery } from '../route'
import { useAsk } from '../state/ask'
import { Command } from '../parts/command'
import { Export } from '../parts/export'
import { Pages } from '../parts/listing'
import { Empty, Panel } from '../parts/panel'
import { Screen } from '../parts/screen'
import { Table, type Column } from '../parts/table'
import { Ago } from '../parts/time'

const PAGE = 100
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
  const [who, what, cluster, before] = [query('who'), query('what'), query('cluster'), query('after')]
  const request = { who, what, cluster, before, limit: PAGE }
  const asked = useAsk(`audit ${JSON.stringify(request)}`, (stop) => FleetView.audit(request, stop), { every: before ? undefined : EVERY })
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
      <Panel asked={asked} rows={8}>
        {({ decisions, nextBefore }) =>
          decisions.length === 0 ? (
            <Empty title={flags.length > 0 ? 'No entry matches.' : 'Nobody has decided anything yet.'}>{flags.length > 0 && <a href="/audit">Show all entries</a>}</Empty>
          ) : (
            <>
              <Table caption="What people did, newest first" columns={COLUMNS} rows={decisions} id={(of) => String(of.id)} />
              <div class="under">
                <Pages next={nextBefore} />
                <Export name="audit" columns={COLUMNS} all={async () => decisions} />
              </div>
            </>
          )
        }
      </Panel>
      <Command text={['fleet audit', ...flags.map(([name, value]) => `--${name} ${shell(value!)}`)].join(' ')} />
    </Screen>
  )
}
