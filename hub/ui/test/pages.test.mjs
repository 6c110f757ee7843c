// The dashboard at a hub whose clusters are played (hub/tests/dashboard_pages/stage.rs): every screen in both themes and at 320 px,
// the questions of someone on call, and everything that can be done, with the mouse and with keys alone.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { after, before, test } from 'node:test'
import { launch, logIn, open, settled } from './lib/browser.mjs'
import { screens } from './lib/screens.mjs'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
let browser
let all
let state

before(async () => {
  browser = await launch()
  const { context, page } = await open(browser)
  await logIn(page, 'OPERATOR')
  state = await context.storageState()
  all = await screens(page)
  await context.close()
})
after(() => browser.close())

/** A window of the operator; what a page logs as an error fails the test. */
async function operator(use, options = {}) {
  const { context, page, errors } = await open(browser, { storageState: state, ...options })
  await use(page, context)
  await context.close()
  assert.deepEqual(errors, [])
}

async function findings(page) {
  await page.evaluate(axe)
  const result = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }))
  return result.violations.flatMap((violation) => violation.nodes.map((node) => `${violation.id}: ${node.target.join(' ')}: ${node.failureSummary}`))
}

for (const theme of ['light', 'dark']) {
  test(`axe finds nothing on any screen, ${theme}`, { timeout: 240_000 }, async () => {
    await operator(
      async (page) => {
        const found = []
        for (const [name, path] of Object.entries(all)) {
          await page.goto(path)
          await settled(page)
          for (const finding of await findings(page)) found.push(`${name}: ${finding}`)
        }
        assert.deepEqual(found, [])
      },
      { colorScheme: theme },
    )
  })
}

test('no screen is wider than 320 px, and every target is at least 24 px', { timeout: 120_000 }, async () => {
  await operator(
    async (page) => {
      const wrong = []
      for (const [name, path] of Object.entries(all)) {
        await page.goto(path)
        await settled(page)
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
        if (wide > 0) wrong.push(`${name}: ${wide} px`)
        const small = await page.evaluate(() =>
          [...document.querySelectorAll('button, input, select, summary, .button')].flatMap((node) => {
            const { width, height } = node.getBoundingClientRect()
            return width > 0 && (width < 24 || height < 24) ? [`${node.tagName} ${node.textContent} ${width}x${height}`] : []
          }),
        )
        wrong.push(...small.map((text) => `${name}: ${text}`))
      }
      assert.deepEqual(wrong, [])
    },
    { viewport: { width: 320, height: 640 } },
  )
})

/** Each question: clicks from the overview, and the text that answers it. */
const QUESTIONS = [
  ['all backed up now?', [], 'Not safe'],
  ['what is late or failed, since when, why?', ['link:Late'], 'archive-of-invoices-since-2009'],
  ['who is silent, what was known last?', ['nav:Clusters'], 'edge-7'],
  ['when did a backup last succeed?', ['link:prod-eu/shop/uploads'], 'Last success'],
  ['what will retention delete?', ['nav:Plans', 'row'], 'Snapshots that go'],
  ['why does maintenance wait, who holds the lock?', ['nav:Locks'], 'held by check crm/nas-main of prod-us'],
  ['how does a repository grow?', ['nav:Repositories', 'link:nas-main'], 'a day'],
  ['what runs, how long still?', ['nav:Activity'], 'ends in'],
  ['what changed, who did it?', ['nav:Audit'], 'olga'],
  ['which backup never ran?', ['link:Never ran'], 'crm/exports'],
  ['which volume has no backup?', ['link:Uncovered claims'], 'ml/features-00'],
  ['of which clusters is that not known?', ['nav:Coverage'], 'Claims are not known of 1 cluster'],
  ['who stores most, and who grows?', ['nav:Storage'], 'no cluster has collected figures of it'],
  ['is the watcher well?', ['nav:Hub'], 'Spokes connected'],
  ['which policies wait?', ['nav:Retention'], 'Needs approval'],
  ['what became of a restore?', ['nav:Restores', 'row'], 'orders-check'],
]
for (const [question, clicks, answer] of QUESTIONS) {
  test(`${question} in ${clicks.length} clicks`, async () => {
    assert.ok(clicks.length <= 2)
    await operator(async (page) => {
      await page.goto('/')
      await settled(page)
      for (const click of clicks) {
        const [kind, name] = click.split(':')
        if (kind === 'nav') await page.getByRole('navigation', { name: 'Screens' }).getByRole('link', { name, exact: true }).click()
        else if (kind === 'row') await page.locator('[data-main]').first().click()
        else await page.getByRole('main').getByRole('link', { name }).first().click()
        await settled(page)
      }
      await page.getByText(answer).first().waitFor({ timeout: 5000 })
    })
  })
}

test('a file of some day in two clicks, read and prepared for a restore', async () => {
  await operator(async (page) => {
    await page.goto('/')
    await page.getByRole('navigation', { name: 'Screens' }).getByRole('link', { name: 'Snapshots' }).click()
    await page.getByLabel('File or folder').fill('orders.db')
    await page.getByLabel('In').selectOption('prod-eu/shop/nas-main')
    await page.getByRole('button', { name: 'Find' }).click()
    await page.getByText('/backup/old/orders.db').first().waitFor()
    await page.getByLabel('Restore /backup/orders.db').check()
    await page.getByRole('link', { name: 'Restore 1 entry' }).click()
    assert.equal(await page.getByLabel('Only these paths').inputValue(), '/orders.db')
    assert.equal(await page.getByLabel('Backup', { exact: true }).inputValue(), 'prod-eu/shop/orders')
    await page.getByRole('button', { name: 'Restore', exact: true }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Restore', exact: true }).click()
    await page.getByRole('heading', { name: 'Create restore' }).waitFor()
    await page.locator('.headline').getByText('Done').waitFor()
    await page.goto('/activity?kind=operation')
    await page.getByRole('link', { name: 'create restore' }).first().waitFor()
  })
})

test('a small file is saved as it was', async () => {
  await operator(async (page) => {
    await page.goto(all.browse)
    const arrives = page.waitForEvent('download')
    await page.getByRole('button', { name: 'Download /backup/readme.txt' }).click()
    const download = await arrives
    assert.equal(download.suggestedFilename(), 'readme.txt')
    assert.equal(readFileSync(await download.path(), 'utf8'), 'what was in there')
  })
})

test('a backup is run, and its end comes by itself', async () => {
  await operator(async (page) => {
    await page.goto('/backups/prod-eu/shop/orders')
    await page.getByRole('button', { name: 'Run now' }).click()
    await page.getByText('fleet backups run prod-eu/shop/orders').waitFor()
    await page.getByRole('dialog').getByRole('button', { name: 'Run now', exact: true }).click()
    await page.locator('.headline').getByText('Done').waitFor()
    await page.getByText('the run succeeded').waitFor()
  })
})

test('a plan is read and approved with keys alone, with a receipt', async () => {
  await operator(async (page) => {
    await page.goto('/')
    await settled(page)
    await page.keyboard.press('g')
    await page.keyboard.press('p')
    await page.getByRole('heading', { name: 'Plans' }).waitFor()
    await settled(page)
    await page.keyboard.press('j')
    await page.keyboard.press('Enter')
    await page.getByText('matches the snapshots below').waitFor()
    for (let n = 0; n < 60; n++) {
      await page.keyboard.press('Tab')
      if (await page.evaluate(() => document.activeElement.textContent === 'Approve')) break
    }
    await page.keyboard.press('Enter')
    const dialog = page.getByRole('dialog')
    await dialog.getByText('64 snapshots').waitFor()
    const approve = dialog.getByRole('button', { name: 'Approve', exact: true })
    assert.equal(await approve.getAttribute('aria-disabled'), 'true', 'nothing is typed yet')
    await dialog.getByLabel(/Type/).focus()
    await page.keyboard.type('nas-main')
    await page.keyboard.press('Enter')
    const receipt = page.getByText('Receipt: entry')
    await receipt.waitFor()
    const entry = await receipt.getByRole('link').textContent()
    await page.goto(`/audit?entry=${entry}`)
    await page.getByRole('link', { name: 'approve-plan' }).waitFor()
  })
})

test('claims without a backup page by page, with keys alone, and of whom they are not known', async () => {
  await operator(async (page) => {
    await page.goto('/')
    await settled(page)
    await page.keyboard.press('g')
    await page.keyboard.press('v')
    await page.getByRole('heading', { name: 'Coverage' }).waitFor()
    await settled(page)
    const verdict = page.locator('.verdict')
    assert.match(await verdict.getAttribute('class'), /bad/)
    await verdict.getByText('9 of 70 claims covered, 58 uncovered, 1 new, 2 excluded.').waitFor()
    const notices = page.locator('.notice.unknown')
    assert.match(await notices.nth(0).textContent(), /not known of 1 cluster.*edge-7/)
    assert.match(await notices.nth(1).textContent(), /Known in part: 1 cluster.*prod-us/)
    await page.getByText('59 claims').waitFor()
    assert.equal(await page.locator('tbody tr').count(), 50)
    await page.keyboard.press('j')
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'ml/features-00')
    await page.keyboard.press(']')
    await page.waitForURL(/after=/)
    await page.getByText('gives no reason').waitFor()
    await page.getByText('its exclusion ended at').waitFor()
    assert.equal(await page.locator('tbody tr').count(), 9)
    const row = page.getByRole('row', { name: /shop\/sessions/ })
    assert.match(await row.textContent(), /–.*not known/, 'neither its size nor its age is known')
    const arrives = page.waitForEvent('download')
    await page.getByRole('button', { name: 'CSV' }).click()
    const text = readFileSync(await (await arrives).path(), 'utf8')
    assert.equal(text.trim().split('\r\n').length, 60, 'all pages')
    await page.keyboard.press('[')
    await page.getByRole('link', { name: 'ml/features-00' }).waitFor()
    await page.keyboard.press('/')
    await page.keyboard.type('shop/')
    await page.waitForURL(/q=shop/)
    await page.getByRole('button', { name: /Excluded/ }).click()
    await page.waitForURL(/state=excluded/)
    await page.getByText('a cache, made anew by the build', { exact: true }).waitFor()
    await page.getByText('no end').waitFor()
    await page.getByText('fleet coverage shop/ --state excluded').waitFor()
    await page.getByRole('link', { name: 'shop/import' }).click()
    await page.waitForURL(/\/backups\?cluster=prod-eu&namespace=shop/)
    await page.getByRole('link', { name: 'shop/orders' }).waitFor()
  })
})

test('a cluster that has reported no claim is not called covered', async () => {
  await operator(async (page) => {
    await page.goto('/clusters/edge-7')
    await page.getByRole('link', { name: 'claims without a backup' }).click()
    await page.waitForURL(/coverage\?cluster=edge-7/)
    await page.locator('.verdict.unknown').getByText('No claim is known.').waitFor()
    await page.getByText('Claims are not known of 1 cluster').waitFor()
    await page.getByText('fleet coverage --cluster edge-7').waitFor()
    await page.goto('/coverage?cluster=prod-us')
    await page.locator('.verdict.unknown').getByText('No uncovered claim is known: 3 of 3 claims covered.').waitFor()
  })
})

test('storage is plotted and stands in a table, and says when it is full', async () => {
  await operator(async (page) => {
    await page.goto('/')
    await settled(page)
    await page.keyboard.press('g')
    await page.keyboard.press('d')
    await page.getByRole('heading', { name: 'Storage' }).waitFor()
    await settled(page)
    await page.locator('.plot canvas').waitFor()
    const table = page.getByRole('table', { name: 'Stored over time' })
    assert.equal(await table.count(), 0, 'it is folded')
    await page.getByText('The same figures as a table').focus()
    await page.keyboard.press('Enter')
    assert.ok((await table.locator('tbody tr').count()) >= 60)
    const nas = page.getByRole('row', { name: /^nas-main/ })
    assert.match(await nas.textContent(), /\+2\d\d GiB/, 'of 8.9 GB a day')
    const local = page.getByRole('row', { name: /no cluster has collected figures of it/ })
    assert.match(await local.first().textContent(), /–/)
    assert.match(await page.locator('.notice.unknown').textContent(), /the growth of/)
    await page.getByRole('columnheader', { name: 'In 30 days' }).getByRole('button').click()
    await page.waitForURL(/sort=growth/)
    assert.match(await page.getByRole('table', { name: 'Repositories by' }).locator('tbody tr').first().textContent(), /^nas-main/, 'what is not known is last')
    await page.getByRole('heading', { name: 'Storage' }).focus()
    await page.keyboard.press('/')
    await page.keyboard.type('4TiB')
    await page.keyboard.press('Enter')
    await page.waitForURL(/capacity=4TiB/)
    await page.getByText('Full, at this rate').waitFor()
    await page.getByText(/\(in \d+ d\)/).waitFor()
    await page.getByText('fleet storage --capacity 4TiB').waitFor()
    await page.goto('/storage?capacity=much')
    await page.getByText('is not a size such as 10TiB').waitFor()
    assert.equal(await page.getByText('Full, at this rate').count(), 0)
  })
})

test('claims that cannot be asked for are not called covered', async () => {
  const { context, page } = await open(browser, { storageState: state })
  await page.goto('/coverage')
  await page.locator('.verdict.bad').waitFor()
  await page.route('**/fleet.v1.FleetView/Coverage', (route) => route.abort())
  // The next question, on the screen that was read before: the last answer stays, and is not of now.
  await page.getByRole('link', { name: 'Hub' }).click()
  await page.getByText('Spokes connected').waitFor()
  await page.goBack()
  await page.getByText('What is shown is of').waitFor()
  await page.locator('.verdict.unknown').waitFor()
  await page.goto('/')
  const tile = page.getByRole('link', { name: /Claims covered/ })
  await tile.waitFor()
  assert.match(await tile.getAttribute('class'), /unknown/)
  assert.match(await tile.textContent(), /^–/)
  await page.goto('/coverage')
  await page.getByText('The hub did not answer').waitFor()
  assert.equal(await page.locator('.verdict').count(), 0)
  await context.close()
})

test('filter, order and range are in the address; back returns', async () => {
  await operator(async (page) => {
    await page.goto('/backups')
    await settled(page)
    await page.keyboard.press('/')
    await page.keyboard.type('shop')
    await page.waitForURL(/q=shop/)
    await page.getByRole('button', { name: 'Suspended' }).click()
    await page.waitForURL(/state=suspended/)
    await page.getByText('1 backup matches').waitFor()
    await page.reload()
    await page.getByText('1 backup matches').waitFor()
    const arrives = page.waitForEvent('download')
    await page.getByRole('button', { name: 'CSV' }).click()
    const text = readFileSync(await (await arrives).path(), 'utf8')
    assert.match(text, /^Backup,State,.*\r\nprod-eu\/shop\/cache,/)
    await page.getByRole('link', { name: 'shop/cache' }).click()
    await page.getByRole('button', { name: 'Resume' }).waitFor()
    await page.goBack()
    await page.getByText('1 backup matches').waitFor()
  })
})

test('a viewer sees everything and is told why it may not act; who has no right is told whom to ask', async () => {
  const viewer = await open(browser)
  await logIn(viewer.page, 'VIEWER')
  await viewer.page.goto('/backups/prod-eu/shop/orders')
  const run = viewer.page.getByRole('button', { name: 'Run now' })
  await run.waitFor()
  assert.equal(await run.getAttribute('aria-disabled'), 'true')
  assert.match(await run.getAttribute('title'), /no right to run/)
  await run.click({ force: true })
  assert.equal(await viewer.page.getByRole('dialog').count(), 0)
  assert.deepEqual(viewer.errors, [])
  await viewer.context.close()
  const stranger = await open(browser)
  await logIn(stranger.page, 'STRANGER')
  await stranger.page.getByText('You may not see this').first().waitFor()
  await stranger.page.getByRole('alert').getByText('fleet people bind').first().waitFor()
  assert.equal(await stranger.page.getByText('Safe', { exact: true }).count(), 0)
  await stranger.context.close()
})

test('two tabs stay up to date, and the logout of one ends the other', async () => {
  await operator(async (_, context) => {
    const other = await context.newPage()
    const page = await context.newPage()
    await page.goto('/')
    await other.goto('/backups/prod-us/crm/customers')
    await other.getByText('OK').first().waitFor()
    await page.getByText('Not safe').first().waitFor()
  })
  const { context, page } = await open(browser)
  await logIn(page, 'ADMIN')
  const other = await context.newPage()
  await other.goto('/clusters')
  await other.getByText('edge-7').waitFor()
  await page.locator('.menu summary').click()
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByLabel('Login token').waitFor()
  await other.reload()
  await other.getByLabel('Login token').waitFor()
  await context.close()
})

test('a hub that is silent greys the page, and nothing can be started', async () => {
  const { context, page } = await open(browser, { storageState: state })
  await page.clock.install()
  await page.goto('/backups/prod-eu/shop/orders')
  await page.getByRole('button', { name: 'Run now' }).waitFor()
  await page.getByText(/hub heard/).waitFor()
  await context.setOffline(true)
  await page.clock.fastForward(40_000)
  await page.getByText('The hub is silent since').waitFor()
  assert.equal(await page.getByRole('button', { name: 'Run now' }).getAttribute('aria-disabled'), 'true')
  const badge = page.locator('.badge')
  assert.match(await badge.getAttribute('class'), /unknown/)
  await context.close()
})

test('a login token is refused once it was used, and no address holds it', async () => {
  const { context, page } = await open(browser)
  await page.goto('/plans')
  await page.getByLabel('Login token').fill(process.env.FLEET_UI_OPERATOR)
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.getByText('was used already').waitFor()
  assert.ok(!page.url().includes('fleet-login'))
  assert.equal(await page.evaluate(() => document.cookie), '')
  await context.close()
})
