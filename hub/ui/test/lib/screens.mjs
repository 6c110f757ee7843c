/** Every screen by name, with the addresses of what the hub has. */
export async function screens(page) {
  const first = async (path, selector) => {
    await page.goto(path)
    return page.locator(selector).first().getAttribute('href')
  }
  const backup = await first('/backups', '[data-main]')
  const cluster = await first('/clusters', '[data-main]')
  const repository = await first('/repositories?sort=-size', '[data-main]')
  const plan = await first('/plans', '[data-main]')
  const policy = await first('/policies', '[data-main]')
  const restored = await first('/restores', '[data-main]')
  const snapshots = await first('/snapshots', '.cards a')
  const snapshot = await first(snapshots, '[data-main]')
  return {
    overview: '/',
    backups: '/backups',
    'backups-late': '/backups?state=late,failed',
    'backups-none': '/backups?q=nothing-is-called-so',
    backup,
    repositories: '/repositories',
    repository,
    coverage: '/coverage',
    'coverage-excluded': '/coverage?state=excluded',
    'coverage-unknown': '/coverage?cluster=edge-7',
    'coverage-none': '/coverage?q=nothing-is-called-so',
    storage: '/storage',
    'storage-full': '/storage?capacity=4TiB&days=365&sort=-growth',
    clusters: '/clusters',
    cluster,
    policies: '/policies',
    policy,
    plans: '/plans',
    plan,
    locks: '/locks',
    activity: '/activity',
    audit: '/audit',
    snapshots: '/snapshots',
    'snapshots-of': snapshots,
    find: `${snapshots}?find=orders.db`,
    browse: `${snapshot}?path=%2Fbackup`,
    restores: '/restores',
    restored,
    health: '/health',
    restore: `/restore?backup=${encodeURIComponent(decodeURIComponent(backup).replace('/backups/', ''))}&snapshot=latest&path=%2Forders.db`,
    missing: '/nothing',
  }
}
