// The dashboard of a hub on real clusters (tests/tests/e2e/dashboard.rs prepares them, and looks at what came of it).
import assert from 'node:assert/strict'
import { execSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { launch, logIn, open, settled } from './lib/browser.mjs'

const { FLEET_UI_PICTURES: pictures, FLEET_UI_RESTART_HUB, FLEET_UI_STOP_SPOKE, FLEET_UI_START_SPOKE } = process.env
const MINUTE = 60_000
let browser
let page

before(async () => {
  browser = await launch()
  page = (await open(browser)).page
  page.setDefaultTimeout(MINUTE)
  await logIn(page, 'ADMIN')
})
after(() => browser.close())

const picture = (name) => page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true })

/** Presses a button, and the same in the dialog that says what it will do. */
async function act(name, typed) {
  await page.getByRole('button', { name, exact: true }).click()
  const dialog = page.getByRole('dialog')
  if (typed) await dialog.getByLabel(/Type/).fill(typed)
  await dialog.getByRole('button', { name, exact: true }).click()
}

async function done() {
  await page.locator('.headline .state', { hasText: /Done|Failed|Refused|Expired/ }).waitFor({ timeout: 3 * MINUTE })
  assert.equal((await page.locator('.headline .state').textContent()).trim(), 'Done', await page.locator('.headline').textContent())
}

test('the first screen knows both clusters and says how it knows', async () => {
  await page.goto('/')
  await settled(page)
  await page.getByText('as of').waitFor()
  await page.goto('/clusters')
  await page.getByRole('link', { name: 'a', exact: true }).waitFor()
  await page.getByRole('link', { name: 'b', exact: true }).waitFor()
})

test('a backup is run twice, and its state comes by itself', { timeout: 5 * MINUTE }, async () => {
  for (const run of [1, 2]) {
    await page.goto('/backups/a/page/orders')
    await act('Run now')
    await done()
    await page.goto('/backups/a/page/orders')
    await page.getByText(`${run} of ${run} good`).waitFor()
  }
  await page.locator('.headline .state', { hasText: 'OK' }).waitFor()
  await picture('backup')
})

test('a file is found in two clicks and read as it was', { timeout: 3 * MINUTE }, async () => {
  await page.goto('/')
  await settled(page)
  await page.getByRole('navigation', { name: 'Screens' }).getByRole('link', { name: 'Snapshots' }).click()
  await page.getByLabel('File or folder').fill('hello.txt')
  await page.getByRole('combobox').selectOption('a/page/nas-of-pages')
  await page.getByRole('button', { name: 'Find' }).click()
  const arrives = page.waitForEvent('download')
  await page.getByRole('button', { name: /^Download .*letters\/hello.txt/ }).click()
  assert.equal(readFileSync(await (await arrives).path(), 'utf8'), 'what the page has to show')
  await picture('find')
})

test('a folder is opened step by step', { timeout: 2 * MINUTE }, async () => {
  await page.goto('/snapshots/a/page/nas-of-pages')
  await page.locator('[data-main]').first().click()
  for (let depth = 0; depth < 6; depth++) {
    await settled(page)
    const letters = page.getByRole('link', { name: 'letters/', exact: true })
    if ((await letters.count()) > 0) {
      await letters.click()
      await page.getByText('hello.txt').first().waitFor()
      await picture('browse')
      return
    }
    const before = page.url()
    await page.locator('td [data-main]').first().click()
    await page.waitForFunction((before) => location.href !== before, before)
  }
  assert.fail('the folder letters was not found')
})

test('the file is restored into the other cluster', { timeout: 4 * MINUTE }, async () => {
  await page.goto('/snapshots/a/page/nas-of-pages')
  const link = await page.locator('[data-main]').first().getAttribute('href')
  const snapshot = new URL(link, 'https://hub').pathname.split('/').at(-1)
  await page.goto(`/restore?backup=b%2Fpage%2Forders&snapshot=${snapshot}&path=%2Fletters%2Fhello.txt`)
  await page.getByLabel(/A claim that is there/).check()
  await page.getByLabel('Name of the claim').fill('data')
  await page.getByLabel('Folder in the claim').fill('back')
  await picture('restore')
  await act('Restore')
  await done()
  await page.goto('/restores')
  await page.getByText('in b').first().waitFor()
  await picture('restores')
})

test('what retention would remove is shown, read and approved', { timeout: 6 * MINUTE }, async () => {
  await page.goto('/policies/a/page/nightly')
  await act('Preview')
  await done()
  await page.goto('/plans')
  await page.getByRole('row', { name: /nas-of-pages/ }).locator('[data-main]').first().click()
  await page.getByText('matches the snapshots below').waitFor()
  await page.getByText('removes 1 snapshot of 2').waitFor()
  await picture('plan')
  await act('Approve', 'nas-of-pages')
  await page.getByText('Receipt: entry').waitFor()
  // The run that follows applies it.
  await page.locator('.headline .state', { hasText: 'Applied' }).waitFor({ timeout: 4 * MINUTE })
})

test('a hub that restarts under an open tab is back without a word', { timeout: 4 * MINUTE }, async () => {
  await page.goto('/backups/a/page/orders')
  await page.getByText('2 of 2 good').waitFor()
  const before = await page.evaluate(() => performance.timeOrigin)
  // Ends when the new hub is ready and the old one is gone.
  execSync(FLEET_UI_RESTART_HUB)
  // The way to the new one may be laid seconds after it is ready. What the old one has said may be seconds old: a new
  // answer counts, then a new message. The answer is asked for here, since a predicate in the page may not be a promise.
  const answers = () => page.evaluate(() => fetch('/', { cache: 'no-store' }).then((answer) => answer.ok, () => false))
  const end = Date.now() + 2 * MINUTE
  while (!(await answers())) {
    assert.ok(Date.now() < end, 'the new hub answers')
    await page.waitForTimeout(250)
  }
  await page.waitForFunction(() => /hub heard [01] s ago/.test(document.querySelector('.heard')?.textContent ?? ''), undefined, { timeout: MINUTE })
  await page.getByRole('button', { name: 'Run now', exact: true }).and(page.locator('[aria-disabled="false"]')).waitFor({ timeout: 2 * MINUTE })
  assert.equal(await page.evaluate(() => performance.timeOrigin), before, 'the page was not loaded again')
})

test('a cluster that falls silent is grey within 45 s, and back when it is', { timeout: 5 * MINUTE }, async () => {
  await page.goto('/clusters')
  const row = page.getByRole('row', { name: /^b / })
  await row.locator('.state', { hasText: 'Connected' }).waitFor({ timeout: 2 * MINUTE })
  execSync(FLEET_UI_STOP_SPOKE)
  const began = Date.now()
  await row.locator('.state', { hasText: 'Stale' }).waitFor({ timeout: MINUTE })
  assert.ok(Date.now() - began < 45_000, `${Date.now() - began} ms`)
  await picture('silent')
  await page.goto('/backups/b/page/orders')
  await page.getByText('is silent since').waitFor()
  execSync(FLEET_UI_START_SPOKE)
  await page.goto('/clusters')
  await row.locator('.state', { hasText: 'Connected' }).waitFor({ timeout: 3 * MINUTE })
})
