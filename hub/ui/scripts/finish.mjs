// After the build: a Brotli copy beside each text file, and the bounds on size and dependencies.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'

const SITE = 'dist/site'
/** What a browser loads before the first screen is there, gzip. */
const START_MAX = 60 * 1024
/** Packages in the browser, with all that they bring along. */
const PACKAGES_MAX = 12

const files = readdirSync(SITE, { recursive: true }).filter((name) => /\.(html|js|css|svg)$/.test(name))
for (const name of files) {
  const bytes = readFileSync(join(SITE, name))
  writeFileSync(join(SITE, `${name}.br`), brotliCompressSync(bytes))
}

const page = readFileSync(join(SITE, 'index.html'), 'utf8')
const start = [...page.matchAll(/(?:src|href)="\/(assets\/[^"]+\.(?:js|css))"/g)].map((match) => match[1])
const size = [...start, 'index.html'].reduce((sum, name) => sum + gzipSync(readFileSync(join(SITE, name))).length, 0)
const total = files.reduce((sum, name) => sum + gzipSync(readFileSync(join(SITE, name))).length, 0)

const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'))
const packages = Object.entries(lock.packages).filter(([name, of]) => name !== '' && !of.dev && !of.optional && !of.peer)
console.log(`start ${(size / 1024).toFixed(1)} KiB gzip, all ${(total / 1024).toFixed(1)} KiB, ${packages.length} packages: ` + packages.map(([name]) => name.replace('node_modules/', '')).join(', '))
if (size > START_MAX) throw new Error(`the start is larger than ${START_MAX} bytes`)
if (packages.length > PACKAGES_MAX) throw new Error(`more than ${PACKAGES_MAX} packages`)
