// One operation, from its asking to its end.
import { useEffect, useState } from 'preact/hooks'
import { FleetControl, type Operation } from '../wire/contract'
import { Refused } from '../wire/grpc'
import { path, to } from '../route'
import { lost } from '../state/session'
import { OPERATION, word } from '../words'
import { Act } from '../parts/act'
import { Command } from '../parts/command'
import { Facts } from '../parts/facts'
import { Failed, Notice, Skeleton } from '../parts/panel'
import { Screen } from '../parts/screen'
import { State } from '../parts/state'
import { At } from '../parts/time'

const AGAIN = 2000
const OVER = ['done', 'failed', 'refused', 'expired', 'cancelled']

/** The operation as it changes, until its end. */
function useOperation(id: string): { operation?: Operation; error?: Refused } {
  const [state, setState] = useState<{ operation?: Operation; error?: Refused }>({})
  useEffect(() => {
    const stop = new AbortController()
    setState({})
    const follow = async () => {
      while (!stop.signal.aborted) {
        try {
          for await (const operation of FleetControl.watchOperation({ id }, stop.signal)) setState({ operation })
          return
        } catch (error) {
          if (stop.signal.aborted) return
          lost(error)
          const refused = error as Refused
          setState((before) => ({ ...before, error: refused }))
          if (refused.code !== 'unavailable') return
          await new Promise((done) => setTimeout(done, AGAIN))
        }
      }
    }
    void follow()
    return () => stop.abort()
  }, [id])
  return state
}

export default function OperationScreen() {
  const [, id = ''] = path.value
  const { operation, error } = useOperation(id)
  return (
    <Screen title={operation ? `${operation.what[0]?.toUpperCase()}${operation.what.slice(1)}` : 'Operation'} up={['Activity', '/activity']}>
      {error && <Failed error={error} since={operation?.changed} />}
      {operation ? <Details of={operation} /> : !error && <Skeleton rows={6} />}
      <Command text={`fleet operations show ${id}`} />
    </Screen>
  )
}

function Details({ of }: { of: Operation }) {
  const [namespace = '', name = ''] = of.subject.split('/')
  const backup = of.what.includes('backup')
  return (
    <>
      <div class="headline" aria-live="polite">
        <State of={word(OPERATION, of.state)} />
        <p>{of.text}</p>
      </div>
      {!of.connected && !OVER.includes(of.state) && (
        <Notice tone="unknown">
          Cluster {of.cluster} is not connected. The operation begins when it is back before <At at={of.expires} />, or not at all.
        </Notice>
      )}
      <Facts
        of={[
          ['About', backup ? <a href={to('backups', of.cluster, namespace, name)}>{of.subject}</a> : of.subject],
          ['Cluster', <a href={to('clusters', of.cluster)}>{of.cluster}</a>],
          ['Asked by', of.who],
          ['Asked', <At at={of.created} />],
          ['Changed', <At at={of.changed} />],
          ['Ended', <At at={of.ended} never="not yet" />],
          ['Made', of.object],
          ['Cancelled by', of.cancelledBy],
          ['Id', <code>{of.id}</code>],
        ]}
      />
      {['waiting', 'sent', 'accepted'].includes(of.state) && (
        <Act label="Cancel" verb="see" title="Cancel this operation" run={async () => void (await FleetControl.cancelOperation({ id: of.id }))}>
          <p>It does not begin any more. One that has begun goes on.</p>
          <Command text={`fleet operations cancel ${of.id}`} />
        </Act>
      )}
    </>
  )
}
