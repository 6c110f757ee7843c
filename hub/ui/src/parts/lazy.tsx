// A component that is loaded when it is first shown.
import type { ComponentType } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { Notice, Skeleton } from './panel'

export function lazy<P extends object>(load: () => Promise<{ default: ComponentType<P> }>): ComponentType<P> {
  let loaded: ComponentType<P> | undefined
  return function Lazy(props: P) {
    const [, again] = useState(0)
    const [failed, setFailed] = useState(false)
    useEffect(() => {
      if (loaded) return
      let here = true
      load().then(
        (module) => {
          loaded = module.default
          if (here) again((n) => n + 1)
        },
        () => here && setFailed(true),
      )
      return () => {
        here = false
      }
    }, [])
    if (loaded) {
      const Loaded = loaded
      return <Loaded {...props} />
    }
    if (!failed) return <Skeleton rows={6} />
    return (
      <Notice tone="bad">
        A part of this page could not be loaded: the hub is away, or was replaced by another version. Reload the page.
      </Notice>
    )
  }
}
