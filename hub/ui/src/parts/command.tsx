import { useState } from 'preact/hooks'

/** The command that shows or does the same, to copy. */
export function Command({ text, label = 'The same in a terminal' }: { text: string; label?: string }) {
  const [copied, setCopied] = useState(false)
  const copy = async () => {
    await navigator.clipboard.writeText(text)
    setCopied(true)
    setTimeout(() => setCopied(false), 2000)
  }
  return (
    <div class="command">
      <span class="muted small">{label}</span>
      <code tabIndex={0}>{text}</code>
      <button type="button" class="quiet" onClick={copy} aria-label={`Copy ${text}`}>
        {copied ? 'Copied' : 'Copy'}
      </button>
    </div>
  )
}
