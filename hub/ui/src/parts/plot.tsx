// Size over time, drawn by uPlot. What it shows stands in the table beside it for everybody who does not see it.
import { effect } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { bytes, number } from '../format'
import { theme, zone } from '../state/prefs'

const HEIGHT = 220
/** Steps of the axis of sizes: 1, 2, 4, … of each unit. */
const STEPS = Array.from({ length: 52 }, (_, n) => 2 ** n)

/** What is counted beside the size. */
type Second = 'snapshots' | 'repositories'
const NAMES: Record<Second, string> = { snapshots: 'Snapshots', repositories: 'Repositories' }

type Point = { at?: number; storedBytes: number } & { [name in Second]?: number }

/** Colours of the theme of now. */
function colour(of: Element, name: string): string {
  return getComputedStyle(of).getPropertyValue(name).trim()
}

function options(node: HTMLElement, width: number, second: Second): uPlot.Options {
  const probe = (name: string) => resolved(node, name)
  const [text, line, size, count] = [probe('--muted'), probe('--line'), probe('--accent'), probe('--warn')]
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line } }
  return {
    width,
    height: HEIGHT,
    tzDate: (seconds) => (zone.value === 'utc' ? uPlot.tzDate(new Date(seconds * 1000), 'Etc/UTC') : new Date(seconds * 1000)),
    scales: { bytes: { range: (_, __, max) => [0, Math.max(max * 1.1, 1024)] }, count: { range: (_, __, max) => [0, Math.max(max * 1.1, 10)] } },
    axes: [
      { ...axis, values: '{YYYY}-{MM}-{DD}', space: 90 },
      { ...axis, scale: 'bytes', size: 74, incrs: STEPS, values: (_, values) => values.map((value) => bytes(value)) },
      { ...axis, scale: 'count', side: 1, size: 54, grid: { show: false }, values: (_, values) => values.map((value) => number(value)) },
    ],
    series: [
      { value: '{YYYY}-{MM}-{DD} {HH}:{mm}' },
      { label: 'Stored', scale: 'bytes', stroke: size, width: 2, points: { show: false }, value: (_, value) => bytes(value ?? undefined) },
      { label: NAMES[second], scale: 'count', stroke: count, width: 1.5, dash: [5, 4], points: { show: false }, value: (_, value) => number(value ?? undefined) },
    ],
  }
}

/** A colour as a canvas takes it: light-dark() is the style sheet's alone. */
function resolved(node: HTMLElement, name: string): string {
  const before = node.style.color
  node.style.color = `var(${name})`
  const value = colour(node, 'color')
  node.style.color = before
  return value
}

export default function Plot({ points, second }: { points: Point[]; second: Second }) {
  const node = useRef<HTMLDivElement>(null)
  useEffect(() => {
    const place = node.current
    if (!place) return
    const data: uPlot.AlignedData = [
      points.map((point) => (point.at ?? 0) / 1000),
      points.map((point) => point.storedBytes),
      points.map((point) => point[second]),
    ]
    let plot: uPlot | undefined
    const draw = () => {
      plot?.destroy()
      plot = new uPlot(options(place, place.clientWidth, second), data, place)
    }
    const dark = matchMedia('(prefers-color-scheme: dark)')
    dark.addEventListener('change', draw)
    const end = effect(() => {
      void theme.value
      void zone.value
      draw()
    })
    const size = new ResizeObserver(() => plot?.setSize({ width: place.clientWidth, height: HEIGHT }))
    size.observe(place)
    return () => {
      dark.removeEventListener('change', draw)
      size.disconnect()
      end()
      plot?.destroy()
    }
  }, [points, second])
  const last = points.at(-1)
  const label = `Stored bytes and ${second} over time; now ${bytes(last?.storedBytes)} and ${number(last?.[second])} ${second}. The same figures stand in the table below.`
  return <div ref={node} class="plot" role="img" aria-label={label} />
}
