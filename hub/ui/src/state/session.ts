// Who is logged in, and what that person may do.
import { computed, signal } from '@preact/signals'
import { FleetAdmin, type WhoAmIResponse } from '../wire/contract'
import { Refused } from '../wire/grpc'

/** `undefined` until the hub has answered, `null` for nobody. */
export const person = signal<WhoAmIResponse | null | undefined>(undefined)
/** Why it is not known. */
export const trouble = signal<Refused | undefined>(undefined)

const verbs = computed(() => new Set(person.value?.grants.flatMap((grant) => grant.verbs)))

/** Whether the person may do this somewhere. The hub decides; the page only shows what would be refused everywhere. */
export function may(verb: string): boolean {
  return verbs.value.has(verb)
}

const AGAIN = 2000

/** Asks until the hub has answered: a page without that shows nothing. */
export async function recognise(): Promise<void> {
  try {
    if (!(await about()).person) {
      person.value = null
      return
    }
    person.value = await FleetAdmin.whoAmI({})
    trouble.value = undefined
  } catch (error) {
    lost(error)
    if (person.value === null) return
    trouble.value = error instanceof Refused ? error : new Refused('unavailable', 'the hub cannot be reached')
    await new Promise((done) => setTimeout(done, AGAIN))
    await recognise()
  }
}

/** Notes that the session has ended, if that is what an error says. */
export function lost(error: unknown): void {
  if (error instanceof Refused && error.code === 'unauthenticated') {
    person.value = null
    trouble.value = undefined
  }
}

const OWN = { 'x-fleet-dashboard': '1', 'content-type': 'application/json' }

export interface About {
  version: string
  issuer: boolean
  /** The browser has a session, or a certificate. */
  person: boolean
}

export async function about(): Promise<About> {
  const answer = await fetch('/about.json')
  return (await answer.json()) as About
}

/** Exchanges a login token, or a login at the issuer, for the session cookie. The answer is how long to wait, or 0. */
export async function logIn(given: { token: string } | { login: string }): Promise<number> {
  const answer = await fetch('/login', { method: 'POST', headers: OWN, body: JSON.stringify(given) })
  const text = await answer.text()
  if (answer.status === 202) return (JSON.parse(text) as { waitMs: number }).waitMs
  if (!answer.ok) {
    let why = text
    try {
      why = (JSON.parse(text) as { error: string }).error
    } catch {
      // It is the text itself.
    }
    throw new Error(why)
  }
  person.value = undefined
  await recognise()
  return 0
}

export async function logOut(): Promise<void> {
  const answer = await fetch('/logout', { method: 'POST', headers: OWN })
  if (!answer.ok && answer.status !== 401) throw new Error(`the hub answered with HTTP ${answer.status}`)
  person.value = null
}
