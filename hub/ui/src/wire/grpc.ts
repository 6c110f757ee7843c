// gRPC-Web to the hub that has served this page: one answer, or a stream of them.
import { decode, encode } from './codec'

/** Codes of gRPC by number. */
const CODES = [
  'ok', 'cancelled', 'unknown', 'invalid-argument', 'deadline-exceeded', 'not-found', 'already-exists', 'permission-denied',
  'resource-exhausted', 'failed-precondition', 'aborted', 'out-of-range', 'unimplemented', 'internal', 'unavailable',
  'data-loss', 'unauthenticated',
] as const
export type Code = (typeof CODES)[number]

/** Why a call failed, in the hub's words. */
export class Refused extends Error {
  readonly code: Code
  constructor(code: Code, message: string) {
    super(message)
    this.code = code
  }
}

/** What a request may leave out. */
export type Ask<T> = { [K in keyof T]?: T[K] extends (infer E)[] ? Ask<E>[] : T[K] extends object | undefined ? Ask<NonNullable<T[K]>> : T[K] }
export type Method<I, O> = (request: Ask<I>, signal?: AbortSignal) => Promise<O>
export type Stream<I, O> = (request: Ask<I>, signal?: AbortSignal) => AsyncGenerator<O, void>

const LIMIT = 15_000

/** A call that is answered once. It ends after 15 s. */
export function method<I, O>(path: string, input: string, output: string): Method<I, O> {
  return async (request, signal) => {
    const late = AbortSignal.timeout(LIMIT)
    const both = signal ? AbortSignal.any([signal, late]) : late
    try {
      for await (const answer of open(path, input, output, request, both)) return answer as O
    } catch (error) {
      if (late.aborted) throw new Refused('deadline-exceeded', 'the hub did not answer within 15 s')
      throw error
    }
    throw new Refused('internal', 'the hub ended the call without an answer')
  }
}

/** A call that is answered again and again, until its reader stops or `signal` does. */
export function stream<I, O>(path: string, input: string, output: string): Stream<I, O> {
  return (request, signal) => open(path, input, output, request, signal) as AsyncGenerator<O, void>
}

async function* open(path: string, input: string, output: string, request: object, signal?: AbortSignal): AsyncGenerator<object, void> {
  const stop = new AbortController()
  const end = () => stop.abort()
  if (signal?.aborted) end()
  signal?.addEventListener('abort', end)
  try {
    const body = await ask(path, encode(input, request), stop.signal)
    let status: Headers | undefined
    for await (const [trailers, bytes] of frames(body)) {
      if (trailers) status = lines(bytes)
      else yield decode(output, bytes)
    }
    if (!status) throw new Refused('unavailable', 'the connection to the hub broke')
    check(status)
  } catch (error) {
    throw error instanceof Refused ? error : new Refused(stop.signal.aborted ? 'cancelled' : 'unavailable', 'the hub cannot be reached')
  } finally {
    signal?.removeEventListener('abort', end)
    // A reader that stops early ends the call at the hub too.
    end()
  }
}

async function ask(path: string, message: Uint8Array, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const frame = new Uint8Array(5 + message.length)
  new DataView(frame.buffer).setUint32(1, message.length)
  frame.set(message, 5)
  const answer = await fetch(`/fleet.v1.${path}`, {
    method: 'POST',
    // The hub takes the cookie only beside these two: a page of another origin cannot send them unasked.
    headers: { 'content-type': 'application/grpc-web+proto', 'x-grpc-web': '1', 'x-fleet-dashboard': '1' },
    body: frame,
    cache: 'no-store',
    signal,
  })
  check(answer.headers)
  if (!answer.ok || !answer.body) throw new Refused('unavailable', `the hub answered with HTTP ${answer.status}`)
  return answer.body
}

/** Frames as they come: whether it is of trailers, and what is in it. */
async function* frames(body: ReadableStream<Uint8Array>): AsyncGenerator<[boolean, Uint8Array], void> {
  const reader = body.getReader()
  let held = new Uint8Array()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    if (held.length === 0) held = new Uint8Array(value)
    else {
      const more = new Uint8Array(held.length + value.length)
      more.set(held)
      more.set(value, held.length)
      held = more
    }
    while (held.length >= 5) {
      const view = new DataView(held.buffer, held.byteOffset)
      const length = view.getUint32(1)
      if (held.length < 5 + length) break
      yield [(view.getUint8(0) & 0x80) !== 0, held.subarray(5, 5 + length)]
      held = held.subarray(5 + length)
    }
  }
}

function lines(bytes: Uint8Array): Headers {
  const headers = new Headers()
  for (const line of new TextDecoder().decode(bytes).split('\r\n')) {
    const colon = line.indexOf(':')
    if (colon > 0) headers.append(line.slice(0, colon).trim(), line.slice(colon + 1).trim())
  }
  return headers
}

function check(headers: Headers): void {
  const status = headers.get('grpc-status')
  if (status === null || status === '0') return
  const text = headers.get('grpc-message') ?? ''
  throw new Refused(CODES[Number(status)] ?? 'unknown', unescape(text))
}

function unescape(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
