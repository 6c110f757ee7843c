// Snapshots and files, read through a cluster: answers come in parts.
import { FleetControl, type AnswerPart, type FileRow, type SnapshotRow } from '../wire/contract'
import { Refused } from '../wire/grpc'

/** A ResticRepository of a cluster. */
export interface Place {
  cluster: string
  namespace: string
  name: string
}

export interface Read {
  snapshots: SnapshotRow[]
  files: FileRow[]
  /** Rows were left out: there are more than the cluster sends. */
  cut: boolean
}

/** A file of more than this is not held in a browser's memory. */
export const FILE_MAX = 256 * 1024 * 1024

function options({ cluster, namespace, name }: Place) {
  return { cluster, repository: { namespace, name } }
}

async function all(parts: AsyncGenerator<AnswerPart, void>): Promise<Read> {
  const read: Read = { snapshots: [], files: [], cut: false }
  for await (const part of parts) {
    read.snapshots.push(...part.snapshots)
    for (const file of part.files) read.files.push(file)
    read.cut ||= part.cut
  }
  return read
}

export function snapshots(place: Place, tags: string[], stop: AbortSignal): Promise<Read> {
  return all(FleetControl.listSnapshots({ options: options(place), question: { tags, limit: 1000 } }, stop))
}

export function folder(place: Place, snapshot: string, path: string, stop: AbortSignal): Promise<Read> {
  return all(FleetControl.listFolder({ options: options(place), question: { snapshot, path } }, stop))
}

export function find(place: Place, snapshot: string, pattern: string, stop: AbortSignal): Promise<Read> {
  return all(FleetControl.findFiles({ options: options(place), question: { snapshot, pattern } }, stop))
}

/** Content of a file, whole or not at all; `arrived` counts its bytes. */
export async function fetchFile(place: Place, snapshot: string, path: string, arrived: (bytes: number) => void, stop: AbortSignal): Promise<BlobPart[]> {
  const parts: BlobPart[] = []
  let size = 0
  for await (const part of FleetControl.fetchFile({ options: options(place), question: { snapshot, path } }, stop)) {
    parts.push(part.data as Uint8Array<ArrayBuffer>)
    size += part.data.length
    if (size > FILE_MAX) throw new Refused('resource-exhausted', 'the file is larger than 256 MiB: fetch it with fleet snapshots get')
    arrived(size)
  }
  return parts
}
