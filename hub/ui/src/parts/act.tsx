// Something that changes the fleet: a button, what it will do, and what came of it.
import type { ComponentChildren } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import type { Operation } from '../wire/contract'
import { late, paused } from '../state/live'
import { may } from '../state/session'
import { go, to } from '../route'
import { Notice } from './panel'

/** A dialog of the browser's own: it holds the focus, and Escape closes it. */
export function Dialog({ title, close, children }: { title: string; close: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null
    dialog.current?.showModal()
    return () => before?.focus()
  }, [])
  return (
    <dialog ref={dialog} onClose={close} aria-label={title}>
      <h2>{title}</h2>
      {children}
    </dialog>
  )
}

interface Props {
  /** On the button, such as "Run now". */
  label: string
  verb: string
  title: string
  /** What it will do. */
  children: ComponentChildren
  /** Does it; an operation that it answers with is shown then. The id is the same when it is tried again: it stays one operation. */
  run: (requestId: string) => Promise<Operation | void>
  /** What has to be typed before. */
  typed?: string
  danger?: boolean
  primary?: boolean
  /** Why it cannot be done now. */
  off?: string | undefined
}

/** Why an action is not offered: the hub would refuse it, or nobody knows whether what is shown is still so. */
function obstacle(verb: string, off: string | undefined): string | undefined {
  if (!may(verb)) return `You have no right to ${verb}: an admin gives it with fleet people bind`
  if (late.value && paused.value) return 'Updates are paused: what is shown may be old'
  if (late.value) return 'The hub is silent: what is shown may be old'
  return off
}

export function Act(props: Props) {
  const [open, setOpen] = useState(false)
  const why = obstacle(props.verb, props.off)
  return (
    <>
      <button
        type="button"
        class={props.danger ? 'danger' : props.primary ? 'primary' : undefined}
        aria-disabled={why !== undefined}
        title={why}
        onClick={() => why === undefined && setOpen(true)}
      >
        {props.label}
        {why !== undefined && <span class="hidden">: {why}</span>}
      </button>
      {open && <Confirm {...props} close={() => setOpen(false)} />}
    </>
  )
}

function Confirm({ title, label, children, run, typed, danger, close }: Props & { close: () => void }) {
  const [text, setText] = useState('')
  const [busy, setBusy] = useState(false)
  const [failed, setFailed] = useState('')
  const [id] = useState(() => crypto.randomUUID())
  const submit = async (event: Event) => {
    event.preventDefault()
    if (busy || (typed !== undefined && text !== typed)) return
    setBusy(true)
    setFailed('')
    try {
      const operation = await run(id)
      close()
      if (operation) go(to('operations', operation.id))
    } catch (error) {
      setFailed((error as Error).message)
      setBusy(false)
    }
  }
  return (
    <Dialog title={title} close={close}>
      <form onSubmit={submit}>
          {children}
          {typed !== undefined && (
            <label class="field">
              Type <code>{typed}</code> to confirm
              <input value={text} autocomplete="off" spellcheck={false} onInput={(event) => setText(event.currentTarget.value)} />
            </label>
          )}
          {failed && <Notice tone="bad">{failed}</Notice>}
          <p class="buttons">
            <button type="button" onClick={close}>
              Cancel
            </button>
            <button type="submit" class={danger ? 'danger' : 'primary'} aria-disabled={busy || (typed !== undefined && text !== typed)}>
              {busy ? 'Sending…' : label}
            </button>
          </p>
      </form>
    </Dialog>
  )
}
