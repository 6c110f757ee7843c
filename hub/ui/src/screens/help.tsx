import { Dialog } from '../parts/act'
import { keys } from '../state/prefs'
import { GO } from '../keys'

export function Help({ close }: { close: () => void }) {
  const rows: [string, string][] = [
    ['/', 'to the filter'],
    ['j k', 'next and previous row'],
    ['Enter', 'opens the row'],
    ['[ ]', 'previous and next page'],
    ...Object.entries(GO).map(([key, [, name]]): [string, string] => [`g ${key}`, name]),
    ['?', 'this help'],
    ['Esc', 'closes, or leaves the filter'],
  ]
  return (
    <Dialog title="Keys" close={close}>
      <dl class="keys">
        {rows.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <label class="choice">
        <input type="checkbox" checked={keys.value === 'on'} onChange={() => (keys.value = keys.value === 'on' ? 'off' : 'on')} /> Keys without Ctrl or Alt are on
      </label>
      <p class="buttons">
        <button type="button" class="primary" onClick={close}>
          Close
        </button>
      </p>
    </Dialog>
  )
}
