// What needs no browser: the wire format, words, and what is written for people.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createServer } from 'vite'

let server
const load = (path) => server.ssrLoadModule(path)
before(async () => {
  globalThis.localStorage = { getItem: () => null, setItem: () => {} }
  server = await createServer({ server: { middlewareMode: true, ws: false }, appType: 'custom', logLevel: 'error', optimizeDeps: { noDiscovery: true } })
})
after(() => server.close())

async function codec() {
  const { use, encode, decode } = await load('/src/wire/codec.ts')
  use((await load('/src/wire/contract.ts')).tables)
  return { encode, decode }
}

const hex = (text) => Uint8Array.from(text.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16))

test('requests are bytes of Protocol Buffers, without what has its initial value', async () => {
  const { encode } = await codec()
  assert.deepEqual(encode('ListRequest', { collection: 'backups', filter: { states: ['late', 'ok'] }, pageSize: 300, sort: '' }), hex('0803' + '120a' + '1a046c617465' + '1a026f6b' + '20ac02'))
  assert.deepEqual(encode('DecidePlanRequest', { plan: 'p', approve: true, hash: '' }), hex('0a0170' + '1801'))
  assert.equal(encode('StatusRequest', {}).length, 0)
})

test('answers are read with initial values, maps, times, and fields that are not known left out', async () => {
  const { decode } = await codec()
  const bytes = hex('0807' + '120608d0a8cdc906' + '1a0473616665' + '42080a046c617465' + '1002' + 'f80301')
  const status = decode('StatusResponse', bytes)
  assert.equal(status.revision, 7)
  assert.equal(status.asOf, 1764971600_000)
  assert.equal(status.verdict, 'safe')
  assert.deepEqual({ ...status.backupsByState }, { late: 2 })
  assert.deepEqual(status.needsYou, [])
  assert.equal(status.pause, undefined)
  assert.throws(() => decode('StatusResponse', hex('1aff')), /ends too early/)
})

test('sizes above 2^32 and times before 1970 are exact', async () => {
  const { encode, decode } = await codec()
  const point = { at: -1500, storedBytes: 9_007_199_254_740_000, uncompressedBytes: 2 ** 40 + 1, snapshots: 3, files: 0, sources: [] }
  const bytes = encode('HistoryPoint', { ...point, at: 1_764_971_600_123 })
  const read = decode('HistoryPoint', bytes)
  assert.equal(read.storedBytes, point.storedBytes)
  assert.equal(read.uncompressedBytes, point.uncompressedBytes)
  assert.equal(read.at, 1_764_971_600_123)
  assert.equal(read.files, 0, 'an optional field that is set is there')
  // -2 s and 500 ms, as the hub writes it.
  assert.equal(decode('HistoryPoint', hex('0a11' + '08feffffffffffffffff01' + '1080cab5ee01')).at, -1500)
})

test('an enum value of a later hub is the unknown one', async () => {
  const { decode } = await codec()
  assert.equal(decode('Operation', hex('4063')).state, 'unspecified')
  assert.equal(decode('Operation', hex('4005')).state, 'done')
})

test('every state that is not known is unknown, and no unknown one is good', async () => {
  const words = await load('/src/words.ts')
  for (const name of ['BACKUP', 'CLUSTER', 'REPOSITORY', 'PLAN', 'LOCK', 'OPERATION', 'BINDING', 'OUTCOME', 'RESULT', 'RESTORE_ROW', 'POLICY', 'COVERAGE', 'ACTIVITY', 'ATTENTION']) {
    for (const state of ['', 'unspecified', 'something-new']) assert.equal(words.word(words[name], state)[0], 'unknown', name)
  }
})

test('the verdict is never good while something is not known', async () => {
  const { verdict } = await load('/src/screens/verdict.ts')
  const status = (change) => ({ verdict: 'safe', clusters: 2, clustersStale: 0, backups: 3, backupsByState: { ok: 3 }, others: 0, matters: 0, ...change })
  assert.deepEqual([verdict(status({})).tone, verdict(status({})).word], ['ok', 'Safe'])
  assert.equal(verdict(status({ verdict: 'not-safe', backupsByState: { late: 1, ok: 2 } })).tone, 'bad')
  assert.match(verdict(status({ verdict: 'not-safe', backupsByState: { late: 1, failed: 1, ok: 1 } })).sentence, /^1 failed, 1 late of 3 backups in 2 clusters/)
  for (const change of [{ verdict: 'unknown', clustersStale: 1 }, { verdict: '' }, { verdict: 'unknown', clusters: 0, backups: 0, backupsByState: {} }, { backupsByState: { suspended: 3 } }]) {
    assert.equal(verdict(status(change)).tone, 'unknown', JSON.stringify(change))
  }
  assert.equal(verdict(status({ others: 1 })).tone, 'warn')
})

test('a state that is not known is counted in the verdict', async () => {
  const { verdict } = await load('/src/screens/verdict.ts')
  const status = { verdict: 'unknown', clusters: 1, clustersStale: 0, backups: 3, backupsByState: { ok: 1, odd: 2 }, others: 0, reason: '' }
  assert.match(verdict(status).sentence, /^2 odd of 3 backups/)
})

test('claims are called covered only where every cluster is known and heard', async () => {
  const { coverage, coveredNow, gaps } = await load('/src/screens/covered.ts')
  const answer = (change) => ({ claims: 5, covered: 4, uncovered: 0, new: 0, excluded: 1, unknownClusters: 0, unknown: [], partialClusters: 0, partial: [], staleClusters: 0, stale: [], coveredStale: 0, cut: false, ...change })
  const tone = (change) => coverage(answer(change)).tone
  assert.deepEqual(coverage(answer({})), { tone: 'ok', word: 'Covered', sentence: '4 of 5 claims covered, 1 excluded.' })
  assert.equal(tone({ covered: 3, new: 1 }), 'warn')
  assert.equal(tone({ covered: 3, uncovered: 1 }), 'bad')
  for (const change of [
    { unknownClusters: 1, unknown: ['b'] },
    { partialClusters: 1, partial: ['b'] },
    { staleClusters: 1, stale: ['b'] },
    { cut: true, claims: 9 },
    { claims: 0, covered: 0, excluded: 0 },
    { claims: 0, covered: 0, excluded: 0, unknownClusters: 1 },
  ]) {
    assert.equal(tone(change), 'unknown', JSON.stringify(change))
  }
  const silent = answer({ staleClusters: 22, stale: ['a', 'b'], coveredStale: 3 })
  assert.equal(coveredNow(silent), 1, 'what was covered when heard last is not covered')
  assert.match(coverage(silent).sentence, /1 of 5 claims covered, 1 excluded, 3 covered when heard last/)
  assert.deepEqual(gaps(silent).map(({ clusters, names }) => [clusters, names]), [[22, ['a', 'b']]])
  assert.match(coverage(answer({ cut: true, claims: 9 })).sentence, /4 not listed/)
})

test('a size that is not known is no zero, and last in every order', async () => {
  const { none, sorted, stored } = await load('/src/screens/stored.ts')
  const rows = [{ name: 'b', storedBytes: 1, growthPerMonth: -5 }, { name: 'c' }, { name: 'a', storedBytes: 2, growthPerMonth: 7 }]
  const order = (by) => sorted(rows, by).map((row) => row.name).join('')
  assert.deepEqual(['', 'name', '-name', 'size', '-size', 'growth', '-growth', 'odd'].map(order), ['bca', 'abc', 'cba', 'bac', 'abc', 'bac', 'abc', 'bca'])
  assert.equal(order(''), 'bca', 'the answer itself keeps its order')
  assert.deepEqual(rows.map(none), [false, true, false])
  assert.equal(stored({ repositories: 2, unknown: 2, storedBytes: 0 }), undefined)
  assert.equal(stored({ repositories: 2, unknown: 1, storedBytes: 0 }), 0)
})

test('days after a cluster fell silent are not known, nor is a run without a result', async () => {
  const { cells } = await load('/src/parts/strip.tsx')
  const day = 86_400_000
  const run = (n, change) => ({ day: n * day, succeeded: 0, partial: 0, failed: 0, bytesAdded: 0, ...change })
  const shown = cells([run(98, { succeeded: 1 }), run(97, {})], 100 * day + 5, 98 * day + 5)
  assert.deepEqual(shown.slice(-5).map((cell) => cell.tone), ['idle', 'unknown', 'ok', 'unknown', 'unknown'])
  assert.deepEqual(cells([], 100 * day + 5).map((cell) => cell.tone), Array(30).fill('idle'))
})

test('a zero of a run that did not come to its end is not shown as one', async () => {
  const { figure } = await load('/src/format.ts')
  const run = { result: 'failed', snapshotId: '', bytesAdded: 0 }
  assert.equal(figure(undefined, 'bytesAdded'), undefined)
  assert.equal(figure(run, 'bytesAdded'), undefined)
  assert.equal(figure({ ...run, bytesAdded: 5 }, 'bytesAdded'), 5)
  assert.equal(figure({ ...run, result: 'succeeded' }, 'bytesAdded'), 0)
})

test('CSV runs nothing in a spreadsheet', async () => {
  const { csv } = await load('/src/parts/export.tsx')
  const columns = [{ name: 'a', text: (row) => row[0], cell: () => null }, { name: 'b', text: (row) => row[1], cell: () => null }]
  assert.equal(csv(columns, [['=1+1', 5], ['x,"y"', 'two\nlines']]), 'a,b\r\n\'=1+1,5\r\n"x,""y""","two\nlines"\r\n')
})

test('the hash of a plan is that of the hub', async () => {
  const { hash } = await load('/src/screens/plan-document.ts')
  // sha256("r\na\nb")
  assert.equal(await hash({ resticId: 'r', remove: [{ id: 'b' }, { id: 'a' }] }), '7fd4c45dacc7ff307b14ed0c3dcb83a763edc85f572548f119cf3e21ace06422')
})

test('sizes, ages and words for a shell', async () => {
  const { bytes, change, endOf, size, span, shell } = await load('/src/format.ts')
  assert.deepEqual([change(2048), change(-2048), change(0), change(undefined)], ['+2.0 KiB', '−2.0 KiB', '0 B', '–'])
  assert.deepEqual(['10TiB', '500 GB', '7', '7B', ' 1kB '].map(size), [10 * 2 ** 40, 5e11, 7, 7, 1000])
  for (const wrong of ['', 'TiB', '-1GB', '1.5GB', '0', '99999PiB', 'ten', '5 toString']) assert.equal(size(wrong), undefined, wrong)
  assert.deepEqual([bytes(0), bytes(1023), bytes(1536), bytes(1.93e12), bytes(undefined)], ['0 B', '1023 B', '1.5 KiB', '1.8 TiB', '–'])
  assert.deepEqual([span(0), span(59_000), span(119_000), span(120_000), span(90 * 60_000), span(47 * 3_600_000), span(48 * 3_600_000)], ['0 s', '59 s', '119 s', '2 min', '90 min', '47 h', '2 d'])
  assert.equal(endOf('2026-11-26'), new Date(2026, 10, 27).getTime())
  assert.equal(endOf('Tuesday'), undefined)
  assert.deepEqual([shell('a/b-c'), shell("it's; rm")], ['a/b-c', "'it'\\''s; rm'"])
})
