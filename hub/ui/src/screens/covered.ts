// Whether every claim has a backup, in one sentence, and what keeps anybody from knowing. Pure.
import type { CoverageResponse } from '../wire/contract'
import { count } from '../words'
import type { Verdict } from './verdict'

/** Clusters of which not all is known. */
export interface Gap {
  what: string
  /** How many there are, and the first of them. */
  clusters: number
  names: string[]
  why: string
}

/** Claims that a backup covers as far as their cluster is heard. */
export function coveredNow(of: CoverageResponse): number {
  return of.covered - of.coveredStale
}

/** What keeps the answer from being one about all claims. */
export function gaps(of: CoverageResponse): Gap[] {
  const all: Gap[] = [
    {
      what: 'Claims are not known of',
      clusters: of.unknownClusters,
      names: of.unknown,
      why: 'They have not reported their claims since the hub began, or their operator is of a version that does not. None of their claims is counted.',
    },
    {
      what: 'Silent:',
      clusters: of.staleClusters,
      names: of.stale,
      why: `Their claims are those of their last report. Whether a backup still covers ${count(of.coveredStale, 'claim')} that had one then is not known.`,
    },
    {
      what: 'Known in part:',
      clusters: of.partialClusters,
      names: of.partial,
      why: 'Their operator watches some namespaces alone (--namespaces), and claims elsewhere are not counted.',
    },
  ]
  return all.filter((gap) => gap.clusters > 0)
}

/** Claims of each sort, those that nobody knows about last. */
function sentence(of: CoverageResponse): string {
  const unlisted = of.claims - of.covered - of.uncovered - of.new - of.excluded
  const parts: [number, string][] = [
    [of.uncovered, 'uncovered'],
    [of.new, 'new'],
    [of.excluded, 'excluded'],
    [of.coveredStale, 'covered when heard last'],
    [unlisted, 'not listed'],
  ]
  const others = parts.flatMap(([n, text]) => (n > 0 ? [`, ${n.toLocaleString('en')} ${text}`] : []))
  return `${coveredNow(of).toLocaleString('en')} of ${count(of.claims, 'claim')} covered${others.join('')}.`
}

/** Good only when every cluster is heard and known as a whole. */
export function coverage(of: CoverageResponse): Verdict {
  const text = sentence(of)
  if (of.uncovered > 0) return { tone: 'bad', word: 'Not all covered', sentence: text }
  if (of.cut || gaps(of).length > 0) return { tone: 'unknown', word: 'Not known', sentence: of.claims === 0 ? 'No claim is known.' : `No uncovered claim is known: ${text}` }
  if (of.claims === 0) return { tone: 'unknown', word: 'Nothing to cover', sentence: 'No cluster reports a claim.' }
  if (of.new > 0) return { tone: 'warn', word: 'Covered but for new ones', sentence: text }
  return { tone: 'ok', word: 'Covered', sentence: text }
}
