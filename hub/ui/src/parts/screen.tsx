import type { ComponentChildren } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { address } from '../route'

/** The heading of a screen, which gets the focus when it is opened, and what stands beside and below it. */
export function Screen({ title, up, actions, children }: { title: string; up?: [string, string]; actions?: ComponentChildren; children: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null)
  const path = address.value.pathname
  useEffect(() => {
    document.title = `${title} · restic-fleet`
  }, [title])
  useEffect(() => {
    heading.current?.focus({ preventScroll: true })
  }, [path])
  return (
    <article class="screen">
      <header class="title">
        <div>
          {up && (
            <a class="up" href={up[1]}>
              {up[0]}
            </a>
          )}
          <h1 ref={heading} tabIndex={-1}>
            {title}
          </h1>
        </div>
        {actions && <div class="actions">{actions}</div>}
      </header>
      {children}
    </article>
  )
}

export function Section({ title, children, aside }: { title: string; children: ComponentChildren; aside?: ComponentChildren }) {
  return (
    <section>
      <div class="heading">
        <h2>{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  )
}
