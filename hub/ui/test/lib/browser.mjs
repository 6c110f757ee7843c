// A browser at the hub that FLEET_UI_ADDRESS names, and people who log in with tokens from the environment.
import { chromium } from 'playwright-core'

export const ADDRESS = process.env.FLEET_UI_ADDRESS

export async function launch() {
  // Debian's Chromium as root, as in a container of CI, has no sandbox.
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
}

/** A window of its own, which fails the test for each error of a page. */
export async function open(browser, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, baseURL: ADDRESS, viewport: { width: 1280, height: 900 }, locale: 'en-GB', timezoneId: 'UTC', reducedMotion: 'reduce', ...options })
  const page = await context.newPage()
  const errors = []
  page.on('pageerror', (error) => errors.push(String(error)))
  page.on('console', (message) => {
    // Networks of other tests on this machine come and go: the page asks again then, as when a laptop changes its network.
    if (message.type() === 'error' && !message.text().includes('ERR_NETWORK_CHANGED')) errors.push(message.text())
  })
  return { context, page, errors }
}

export async function logIn(page, who) {
  await page.goto('/')
  await page.getByLabel('Login token').fill(process.env[`FLEET_UI_${who}`])
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.getByRole('heading', { name: 'Overview' }).waitFor()
}

/** Until nothing is loading any more. */
export async function settled(page) {
  await page.waitForFunction(() => !document.querySelector('.skeleton'))
}
