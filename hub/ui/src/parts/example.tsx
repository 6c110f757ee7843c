const BACKUP = `apiVersion: backup.resticbackup.io/v1alpha1
kind: ResticBackup
metadata: { name: orders, namespace: shop }
spec:
  repositoryRef: { name: nas }
  source: { pvc: { claimName: orders-data } }
  schedule: "0 2 * * *"`

/** A backup as a person writes one, with the names of README. `make charts-test` has an API server judge it. */
export function ExampleBackup() {
  return <pre tabIndex={0}>{BACKUP}</pre>
}
