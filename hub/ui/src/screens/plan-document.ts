// The plan of a run of retention, as its pod wrote it (proto::plan::PlanDocument). Lists that are not there are empty.

export interface Removal {
  id: string
  time?: string
  host?: string
  tags?: string[]
  paths?: string[]
  by?: string[]
}

export interface Group {
  host: string
  paths: string[]
  tags: string[]
  keep: number
  remove: number
  oldest?: string | null
}

export interface PlanDocument {
  hash: string
  resticId: string
  snapshots: number
  preview: boolean
  remove: Removal[]
  previewed: Removal[]
  policies: { source: string; generation: number; preview?: boolean; suspended?: boolean }[]
  keepers: { source: string; snapshots: number }[]
  groups: Group[]
  outOfReach: { cluster: string; uid?: string; snapshots: number }[]
  guards: { reason: string; message: string }[]
  unmatched: string[]
  faults: { source: string; text: string }[]
  shortened: boolean
}

const EMPTY: PlanDocument = {
  hash: '', resticId: '', snapshots: 0, preview: false, remove: [], previewed: [], policies: [], keepers: [], groups: [],
  outOfReach: [], guards: [], unmatched: [], faults: [], shortened: false,
}

/** The document of a plan; undefined for one that this page cannot read. */
export function read(text: string): PlanDocument | undefined {
  try {
    const line = JSON.parse(text) as { plan?: Partial<PlanDocument> }
    return line.plan && { ...EMPTY, ...line.plan }
  } catch {
    return undefined
  }
}

/** The hash over the snapshots that a document removes: what an approval names must be of what is shown. */
export async function hash(document: PlanDocument): Promise<string> {
  const ids = document.remove.map((removal) => removal.id).sort()
  const text = [document.resticId, ...ids].join('\n')
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** Value of a tag of the fleet, such as "fleet.cluster". */
export function tagged(tags: string[] | undefined, name: string): string | undefined {
  return tags?.find((tag) => tag.startsWith(`${name}=`))?.slice(name.length + 1)
}
