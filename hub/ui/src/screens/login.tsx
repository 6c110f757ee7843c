// Who nobody knows yet: a login token, or the issuer that the hub trusts.
import { useEffect, useState } from 'preact/hooks'
import { FleetAdmin, type BeginLoginResponse } from '../wire/contract'
import { about, logIn, type About } from '../state/session'
import { Command } from '../parts/command'
import { Notice } from '../parts/panel'

export default function Login() {
  const [known, setKnown] = useState<About>()
  useEffect(() => {
    document.title = 'Log in · restic-fleet'
    about().then(setKnown, () => {})
  }, [])
  return (
    <main class="login" id="main">
      <h1>restic-fleet</h1>
      <ByToken />
      {known?.issuer && <AtIssuer />}
      {known && <p class="small muted">hub {known.version}</p>}
    </main>
  )
}

function ByToken() {
  const [busy, setBusy] = useState(false)
  const [failed, setFailed] = useState('')
  const submit = async (event: SubmitEvent) => {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement)
    setBusy(true)
    setFailed('')
    try {
      await logIn({ token: String(form.get('token')).trim() })
    } catch (error) {
      setFailed((error as Error).message)
      setBusy(false)
    }
  }
  return (
    <form onSubmit={submit}>
      <label class="field">
        Login token
        <input name="token" type="password" required autocomplete="one-time-code" spellcheck={false} placeholder="fleet-login-…" />
      </label>
      {failed && <Notice tone="bad">{failed}</Notice>}
      <button type="submit" class="primary" disabled={busy}>
        Log in
      </button>
      <Command text="fleet dashboard" label="This prints one" />
    </form>
  )
}

function AtIssuer() {
  const [begun, setBegun] = useState<BeginLoginResponse>()
  const [failed, setFailed] = useState('')
  const begin = async () => {
    setFailed('')
    try {
      setBegun(await FleetAdmin.beginLogin({}))
    } catch (error) {
      setFailed((error as Error).message)
    }
  }
  useEffect(() => {
    if (!begun) return
    let timer: ReturnType<typeof setTimeout>
    const ask = async () => {
      try {
        const wait = await logIn({ login: begun.login })
        if (wait > 0) timer = setTimeout(ask, wait)
      } catch (error) {
        setFailed((error as Error).message)
        setBegun(undefined)
      }
    }
    timer = setTimeout(ask, begun.waitMs)
    return () => clearTimeout(timer)
  }, [begun])
  return (
    <section>
      <h2>Or by your organisation</h2>
      {failed && <Notice tone="bad">{failed}</Notice>}
      {begun ? (
        <p role="status">
          Open <a href={begun.wholeAddress || begun.address} target="_blank" rel="noreferrer">{begun.address}</a> and confirm the code <strong>{begun.code}</strong>. This page goes on by itself.
        </p>
      ) : (
        <button type="button" onClick={begin}>
          Log in with the issuer
        </button>
      )}
    </section>
  )
}
