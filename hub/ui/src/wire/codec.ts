// Protocol Buffers, as far as the contract uses them: read and written by the tables of contract.ts.

type Value = unknown
type Message = Record<string, Value>

interface Field {
  number: number
  name: string
  sort: ':' | '?' | '*' | '%'
  kind: string
}

interface Table {
  fields: Field[]
  byNumber: Map<number, Field>
}

interface List {
  names: Map<number, string>
  numbers: Map<string, number>
}

let source: Record<string, string> = {}
const messages = new Map<string, Table>()
const lists = new Map<string, List>()

/** Tables of messages and enums by name. Each is read at its first use. */
export function use(tables: Record<string, string>): void {
  source = tables
}

function table(name: string): Table {
  const known = messages.get(name)
  if (known) return known
  const text = source[name] ?? ''
  const fields = text.split(' ').flatMap((entry) => {
    const parts = /^(\d+)(\w+)([:?*%])(\w+)$/.exec(entry)
    if (!parts) return []
    return [{ number: Number(parts[1]), name: parts[2]!, sort: parts[3] as Field['sort'], kind: parts[4]! }]
  })
  const made = { fields, byNumber: new Map(fields.map((field) => [field.number, field])) }
  messages.set(name, made)
  return made
}

function list(kind: string): List | undefined {
  const known = lists.get(kind)
  if (known) return known
  const text = source[kind]
  if (!text?.startsWith('=')) return undefined
  const made: List = { names: new Map(), numbers: new Map() }
  for (const entry of text.slice(1).split(' ')) {
    const parts = /^(\d+)(.+)$/.exec(entry)
    if (!parts) continue
    made.names.set(Number(parts[1]), parts[2]!)
    made.numbers.set(parts[2]!, Number(parts[1]))
  }
  lists.set(kind, made)
  return made
}

const decoder = new TextDecoder()
const encoder = new TextEncoder()

class Reader {
  at = 0
  private readonly bytes: Uint8Array
  readonly end: number
  constructor(bytes: Uint8Array) {
    this.bytes = bytes
    this.end = bytes.length
  }

  /** Up to 2^53 exactly; sizes and counts are never greater. A negative int64 comes in two's complement. */
  varint(): number {
    let low = 0
    let high = 0
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.bytes[this.at++]
      if (byte === undefined) throw new Error('a message ends too early')
      if (shift < 28) low |= (byte & 0x7f) << shift
      else if (shift === 28) {
        low |= (byte & 0x0f) << 28
        high |= (byte & 0x7f) >> 4
      } else high |= (byte & 0x7f) << (shift - 32)
      if (byte < 0x80) break
    }
    return (high | 0) * 4294967296 + (low >>> 0)
  }

  chunk(): Uint8Array {
    const length = this.varint()
    const from = this.at
    this.at += length
    if (this.at > this.end) throw new Error('a message ends too early')
    return this.bytes.subarray(from, this.at)
  }

  skip(wire: number): void {
    if (wire === 0) this.varint()
    else if (wire === 1) this.at += 8
    else if (wire === 2) this.chunk()
    else if (wire === 5) this.at += 4
    else throw new Error(`a field of the unknown sort ${wire}`)
  }
}

function initial(kind: string): Value {
  if (kind === 's') return ''
  if (kind === 'b') return false
  if (kind === 'y') return new Uint8Array()
  if (kind === 'n') return 0
  return list(kind)?.names.get(0)
}

/** A value that is not of variable length. */
function scalar(kind: string, number: number): Value {
  if (kind === 'b') return number !== 0
  if (kind === 'n') return number
  // A value that this page does not know is the unknown one.
  const known = list(kind)
  return known?.names.get(number) ?? known?.names.get(0)
}

function whole(kind: string, bytes: Uint8Array): Value {
  if (kind === 's') return decoder.decode(bytes)
  if (kind === 'y') return bytes.slice()
  if (kind === 't') return timestamp(bytes)
  return decode(kind, bytes)
}

function timestamp(bytes: Uint8Array): number {
  const reader = new Reader(bytes)
  let millis = 0
  while (reader.at < reader.end) {
    const tag = reader.varint()
    if (tag >> 3 === 1) millis += reader.varint() * 1000
    else if (tag >> 3 === 2) millis += Math.floor(reader.varint() / 1e6)
    else reader.skip(tag & 7)
  }
  return millis
}

function read(reader: Reader, kind: string, wire: number): Value {
  return wire === 2 ? whole(kind, reader.chunk()) : scalar(kind, reader.varint())
}

function entry(into: Message, field: Field, bytes: Uint8Array): void {
  const reader = new Reader(bytes)
  let key = ''
  let value = initial(field.kind)
  while (reader.at < reader.end) {
    const tag = reader.varint()
    if (tag >> 3 === 1) key = decoder.decode(reader.chunk())
    else value = read(reader, field.kind, tag & 7)
  }
  ;(into[field.name] as Message)[key] = value
}

/** A message of this name. Fields that are not in the table are left out. */
export function decode(name: string, bytes: Uint8Array): Message {
  const { fields, byNumber } = table(name)
  const message: Message = {}
  for (const { name, sort, kind } of fields) {
    if (sort === '*') message[name] = []
    else if (sort === '%') message[name] = Object.create(null)
    else if (sort === ':') message[name] = initial(kind)
  }
  const reader = new Reader(bytes)
  while (reader.at < reader.end) {
    const tag = reader.varint()
    const field = byNumber.get(tag >>> 3)
    const wire = tag & 7
    if (!field || (wire !== 0 && wire !== 2)) reader.skip(wire)
    else if (field.sort === '%') entry(message, field, reader.chunk())
    else if (field.sort === '*') repeated(message[field.name] as Value[], reader, field.kind, wire)
    else message[field.name] = read(reader, field.kind, wire)
  }
  return message
}

function repeated(into: Value[], reader: Reader, kind: string, wire: number): void {
  const packed = wire === 2 && (kind === 'n' || kind === 'b' || list(kind) !== undefined)
  if (!packed) {
    into.push(read(reader, kind, wire))
    return
  }
  const inner = new Reader(reader.chunk())
  while (inner.at < inner.end) into.push(scalar(kind, inner.varint()))
}

function varint(out: number[], value: number): void {
  let rest = value
  while (rest >= 0x80) {
    out.push((rest % 0x80) | 0x80)
    rest = Math.floor(rest / 0x80)
  }
  out.push(rest)
}

function chunk(out: number[], number: number, bytes: ArrayLike<number>): void {
  varint(out, number * 8 + 2)
  varint(out, bytes.length)
  for (let i = 0; i < bytes.length; i++) out.push(bytes[i]!)
}

function put(out: number[], field: Field, value: Value): void {
  const { number, kind } = field
  if (kind === 's') chunk(out, number, encoder.encode(value as string))
  else if (kind === 'y') chunk(out, number, value as Uint8Array)
  else if (kind === 't') {
    const inner: number[] = []
    const seconds = Math.floor((value as number) / 1000)
    varint(inner, 8)
    varint(inner, seconds)
    varint(inner, 16)
    varint(inner, Math.round((value as number) - seconds * 1000) * 1e6)
    chunk(out, number, inner)
  } else if (kind === 'n' || kind === 'b' || list(kind)) {
    const plain = kind === 'n' ? (value as number) : kind === 'b' ? Number(value) : list(kind)!.numbers.get(value as string)
    varint(out, number * 8)
    varint(out, plain ?? 0)
  } else chunk(out, number, plainly(kind, value as Message))
}

function plainly(name: string, message: Message): number[] {
  const out: number[] = []
  for (const field of table(name).fields) {
    const value = message[field.name]
    if (value === undefined || value === null) continue
    if (field.sort === '*') for (const one of value as Value[]) put(out, field, one)
    else if (field.sort === '%') throw new Error('the contract has no request with a map')
    else if (field.sort === ':' && (value === '' || value === 0 || value === false)) continue
    else put(out, field, value)
  }
  return out
}

/** Bytes of a message; fields that are undefined or have their initial value are left out. */
export function encode(name: string, message: object): Uint8Array<ArrayBuffer> {
  return new Uint8Array(plainly(name, message as Message))
}
