// The frame of all screens: where one is, whether the hub is there, and who one is.
import type { ComponentType } from 'preact'
import { signal } from '@preact/signals'
import { useEffect, useState } from 'preact/hooks'
import { moment, span } from './format'
import { help, GO } from './keys'
import { address, path } from './route'
import { now } from './state/clock'
import { lastHeard, late, paused } from './state/live'
import { theme, zone, type Theme } from './state/prefs'
import { logOut, person, trouble } from './state/session'
import { useStatus } from './state/status'
import { lazy } from './parts/lazy'
import { Failed, Notice, Skeleton } from './parts/panel'
import { Screen } from './parts/screen'
import { Sign } from './parts/state'
import { Help } from './screens/help'
import Home from './screens/home'
import Login from './screens/login'
import { verdict } from './screens/verdict'

/** By the first part of the path: a screen for it alone, and one for what follows. */
const SCREENS: Record<string, [ComponentType, ComponentType?]> = {
  backups: [lazy(() => import('./screens/backups')), lazy(() => import('./screens/backup'))],
  coverage: [lazy(() => import('./screens/coverage'))],
  storage: [lazy(() => import('./screens/storage'))],
  clusters: [lazy(() => import('./screens/clusters')), lazy(() => import('./screens/cluster'))],
  repositories: [lazy(() => import('./screens/repositories')), lazy(() => import('./screens/repository'))],
  plans: [lazy(() => import('./screens/plans')), lazy(() => import('./screens/plan'))],
  locks: [lazy(() => import('./screens/locks'))],
  activity: [lazy(() => import('./screens/activity'))],
  audit: [lazy(() => import('./screens/audit'))],
  operations: [lazy(() => import('./screens/activity')), lazy(() => import('./screens/operation'))],
  restore: [lazy(() => import('./screens/restore'))],
  restores: [lazy(() => import('./screens/restores')), lazy(() => import('./screens/restored'))],
  policies: [lazy(() => import('./screens/policies')), lazy(() => import('./screens/policy'))],
  health: [lazy(() => import('./screens/health'))],
  snapshots: [lazy(() => import('./screens/snapshots')), lazy(() => import('./screens/snapshots'))],
}
const Browse = lazy(() => import('./screens/browse'))

function screen(parts: string[]): ComponentType {
  const [first] = parts
  if (first === undefined) return Home
  if (first === 'snapshots' && parts.length > 4) return Browse
  const [all, one] = SCREENS[first] ?? []
  return (parts.length > 1 ? one : all) ?? Missing
}

function Missing() {
  return (
    <Screen title="There is no such page">
      <p>
        <a href="/">To the overview</a>
      </p>
    </Screen>
  )
}

export function App() {
  if (person.value === undefined) return <main class="login">{trouble.value ? <Failed error={trouble.value} /> : <Skeleton rows={3} />}</main>
  if (person.value === null) return <Login />
  const Shown = screen(path.value)
  return (
    <div class={late.value ? 'frame silent' : 'frame'}>
      <a class="skip" href="#main">
        Skip to content
      </a>
      <Bar />
      <Navigation />
      <main id="main" tabIndex={-1}>
        <Silence />
        <Shown key={path.value.join('/')} />
      </main>
      {help.value && <Help close={() => (help.value = false)} />}
    </div>
  )
}

/** The list of screens is shown, on a narrow screen. */
const open = signal(false)

function Bar() {
  const asked = useStatus()
  const of = asked.data && verdict(asked.data)
  const tone = late.value || asked.error || !of ? 'unknown' : of.tone
  return (
    <header class="bar">
      <button type="button" class="open-nav quiet" aria-expanded={open.value} aria-controls="screens" onClick={() => (open.value = !open.value)}>
        Screens
      </button>
      <a href="/" class="brand">
        restic-fleet
      </a>
      <a href="/" class={`badge ${tone}`}>
        <Sign tone={tone} />
        {of?.word ?? '…'}
      </a>
      <span class="heard small" role="status">
        {paused.value ? 'Updates are paused' : lastHeard.value === 0 ? 'Connecting…' : `hub heard ${span(now.value - lastHeard.value)} ago`}
      </span>
      <Menu />
    </header>
  )
}

function Menu() {
  const who = person.value
  const [failed, setFailed] = useState('')
  return (
    <details class="menu">
      <summary>{who?.name}</summary>
      <div>
        <p class="small muted">
          by {who?.method}, until {moment(who?.expires)}
        </p>
        {who?.grants.map((grant, n) => (
          <p key={n} class="small">
            may {grant.verbs.join(', ')} {place(grant.scope)}
          </p>
        ))}
        {who?.grants.length === 0 && <p class="small">has no rights yet: an admin gives them with fleet people bind</p>}
        <label class="field">
          Colours
          <select value={theme.value} onChange={(event) => (theme.value = event.currentTarget.value as Theme)}>
            <option value="system">as the system</option>
            <option value="light">light</option>
            <option value="dark">dark</option>
          </select>
        </label>
        <label class="field">
          Times
          <select value={zone.value} onChange={(event) => (zone.value = event.currentTarget.value as 'local' | 'utc')}>
            <option value="local">local</option>
            <option value="utc">UTC</option>
          </select>
        </label>
        <button type="button" aria-pressed={paused.value} onClick={() => (paused.value = !paused.value)}>
          {paused.value ? 'Go on updating' : 'Pause updates'}
        </button>
        <button type="button" onClick={() => (help.value = true)}>
          Keys
        </button>
        <button type="button" onClick={() => void logOut().catch((error: Error) => setFailed(error.message))}>
          Log out
        </button>
        {failed && <Notice tone="bad">You are still logged in: {failed}</Notice>}
      </div>
    </details>
  )
}

function place(scope: { clusters: string[]; namespaces: string[]; repositories: string[] } | undefined): string {
  const lists = [
    ['clusters', scope?.clusters],
    ['namespaces', scope?.namespaces],
    ['repositories', scope?.repositories],
  ] as const
  const narrowed = lists.flatMap(([name, list]) => (list?.length ? [`${name} ${list.join(', ')}`] : []))
  return narrowed.length === 0 ? 'everywhere' : `in ${narrowed.join('; ')}`
}

function Navigation() {
  const here = `/${path.value[0] ?? ''}`
  useEffect(() => {
    open.value = false
  }, [address.value.href])
  return (
    <nav id="screens" class={open.value ? 'main open' : 'main'} aria-label="Screens">
      <ul>
        {Object.values(GO).map(([href, name]) => (
          <li key={href}>
            <a href={href} aria-current={here === href ? (address.value.pathname === href ? 'page' : 'true') : undefined}>
              {name}
            </a>
          </li>
        ))}
      </ul>
    </nav>
  )
}

/** Two heartbeats were missed: everything below is of that time. */
function Silence() {
  if (!late.value || paused.value) return null
  return (
    <div class="notice bad" role="alert">
      <Sign tone="bad" />
      <div>
        <strong>The hub is silent since {moment(lastHeard.value, true)}.</strong>
        <p>What is shown is of that time, and nothing can be started. The page connects again by itself.</p>
      </div>
    </div>
  )
}
