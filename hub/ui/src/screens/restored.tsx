// One restore: how far it is, what came of it.
import type { GetResponse, RestoreRow } from '../wire/contract'
import { bytes, number, short } from '../format'
import { path, to } from '../route'
import { RESTORE_ROW, word } from '../words'
import { Command } from '../parts/command'
import { Facts } from '../parts/facts'
import { Panel } from '../parts/panel'
import { Progress } from '../parts/progress'
import { Screen } from '../parts/screen'
import { State } from '../parts/state'
import { At } from '../parts/time'
import { Around, Silent, useObject } from './object'

export default function Restored() {
  const [, cluster = '', namespace = '', name = ''] = path.value
  const asked = useObject('restores', `${cluster}/${namespace}/${name}`, cluster)
  const row = asked.data?.row?.restore
  return (
    <Screen title={`${namespace}/${name}`} up={['Restores', '/restores']}>
      <Panel asked={asked} rows={6}>{(of) => row && <Details row={row} of={of} />}</Panel>
      <Command text={`kubectl -n ${namespace} describe rres ${name}`} label={`In cluster ${cluster}`} />
    </Screen>
  )
}

function Details({ row, of }: { row: RestoreRow; of: GetResponse }) {
  const restore = row.restore
  const stale = row.freshness?.stale ?? false
  return (
    <div class={stale ? 'stack old' : 'stack'}>
      <div class="headline" aria-live="polite">
        <State of={word(RESTORE_ROW, row.state)} stale={stale} />
        {row.reason && <p>{row.reason}</p>}
      </div>
      <Silent cluster={row.cluster} freshness={row.freshness} />
      <Progress of={restore?.progress} what="Progress of the restore" />
      <Facts
        of={[
          ['Snapshot', restore?.snapshotId && <a href={to('snapshots', row.cluster, restore.repositoryNamespace, restore.repositoryName, restore.snapshotId)}>{short(restore.snapshotId)}</a>],
          ['Target', restore?.target],
          ['Asked', <At at={row.created} />],
          ['Began', <At at={restore?.started} never="not yet" />],
          ['Ended', <At at={restore?.finished} never="not yet" />],
          ['Restored', restore && restore.files > 0 && `${bytes(restore.bytes)} in ${number(restore.files)} files`],
          ['Known as of', <At at={row.freshness?.lastHeard} />],
        ]}
      />
      <Around of={of} />
    </div>
  )
}
