import { FleetView } from '../wire/contract'
import { useAsk } from './ask'

/** The verdict: of the first screen, and of the bar above all others. */
export function useStatus() {
  return useAsk('status', (stop) => FleetView.status({}, stop), { cluster: '', every: 30_000 })
}
