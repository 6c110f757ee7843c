// Pictures of every screen, in both themes and at 320 px: node scripts/shots.mjs FOLDER [part of a name].
import { mkdirSync } from 'node:fs'
import { launch, logIn, open, settled } from '../test/lib/browser.mjs'
import { screens } from '../test/lib/screens.mjs'

const [folder = 'dist/shots', only = ''] = process.argv.slice(2)
mkdirSync(folder, { recursive: true })
const browser = await launch()
const first = await open(browser)
await logIn(first.page, 'ADMIN')
const state = await first.context.storageState()
const all = await screens(first.page)
for (const [theme, width] of [['light', 1280], ['dark', 1280], ['light', 320], ['dark', 320]]) {
  const { context, page, errors } = await open(browser, { storageState: state, colorScheme: theme, viewport: { width, height: width === 320 ? 640 : 900 } })
  for (const [name, path] of Object.entries(all)) {
    if (!name.includes(only)) continue
    await page.goto(path)
    await settled(page)
    await page.screenshot({ path: `${folder}/${name}-${theme}-${width}.png`, fullPage: true })
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
    if (wide > 0) console.log(`${name} at ${width}: ${wide} px too wide`)
  }
  for (const error of errors) console.log(`error: ${error}`)
  await context.close()
}
await browser.close()
