// Made from proto/ by hub/tests/dashboard_contract.rs. Do not edit.
// Times are milliseconds since 1970. What is not there is undefined: messages, times, optional and oneof fields.
import { method, stream } from './grpc'

export type ActivityKind = 'unspecified' | 'backup' | 'restore' | 'maintenance' | 'operation' | 'decision'

export type ActivityResult = 'unspecified' | 'failed' | 'partial' | 'open' | 'done'

export type BackupResult = 'unspecified' | 'succeeded' | 'partially-failed' | 'failed'

export type Collection = 'unspecified' | 'clusters' | 'repositories' | 'backups' | 'policies' | 'restores'

export type CommandState = 'unspecified' | 'waiting' | 'sent' | 'accepted' | 'running' | 'done' | 'failed' | 'refused' | 'expired' | 'cancelled'

export type RotationStep = 'unspecified' | 'begin' | 'activate' | 'retire'

export interface AcceptClusterRequest {
  cluster: string
  clusterUid: string
}

export interface AcceptClusterResponse {
}

export interface ActivityEntry {
  kind: ActivityKind
  at?: number
  began?: number
  ended?: number
  cluster: string
  subject: string
  what: string
  result: ActivityResult
  text: string
  who: string
  resticId: string
  id: string
  bytesAdded: number
}

export interface ActivityRequest {
  clusters: string[]
  kinds: ActivityKind[]
  since?: number
  limit: number
  before: string
}

export interface ActivityResponse {
  asOf?: number
  entries: ActivityEntry[]
  nextBefore: string
}

export interface AnswerPart {
  snapshots: SnapshotRow[]
  files: FileRow[]
  data: Uint8Array
  cut: boolean
}

export interface Attention {
  state: string
  subject: string
  detail: string
  count: number
  next: string
}

export interface AuditEntry {
  token: number
  resticId: string
  repository: string
  cluster: string
  subject: string
  granted?: number
  ended?: number
  outcome?: OperationOutcome
  policies: string[]
  covered: string[]
  plan: string
}

export interface AuditRequest {
  repository: string
  limit: number
  before: string
  who: string
  what: string
  cluster: string
  since?: number
  after?: number
  follow: string
}

export interface AuditResponse {
  asOf?: number
  entries: AuditEntry[]
  decisions: Decision[]
  nextBefore: string
  last: number
  follow: string
}

export interface AuthoritiesRequest {
  kept: Uint8Array[]
}

export interface AuthoritiesResponse {
  authorities: Uint8Array[]
}

export interface BackupRow {
  cluster: string
  namespace: string
  name: string
  state: string
  reason: string
  backup?: BackupState
  ready: boolean
  freshness?: Freshness
  due?: number
  since?: number
}

export interface BackupRun {
  started?: number
  finished?: number
  result: BackupResult
  reason: string
  message: string
  snapshotId: string
  bytesAdded: number
  bytesProcessed: number
  filesProcessed: number
}

export interface BackupState {
  repositoryNamespace: string
  repositoryName: string
  resticId: string
  schedule: string
  timezone: string
  suspended: boolean
  lastRun?: BackupRun
  lastSuccess?: number
  nextRun?: number
  runsTotal: number
  runsSucceeded: number
  runsFailed: number
  running: boolean
  source: string
  underWay: boolean
  progress?: RunProgress
}

export interface BanClusterRequest {
  cluster: string
  reason: string
}

export interface BanClusterResponse {
  wasConnected: boolean
}

export interface Baseline {
  key: string
  left: number
}

export interface Begin {
}

export interface BeginLoginRequest {
  redirect: string
}

export interface BeginLoginResponse {
  login: string
  address: string
  wholeAddress: string
  code: string
  waitMs: number
  expires?: number
  state: string
}

export interface BindRequest {
  user: string
  group: string
  rights: string
  scope?: Scope
}

export interface BindResponse {
  id: number
}

export interface Bookmark {
  view: Uint8Array
}

export interface CancelOperationRequest {
  id: string
}

export interface CertificateEnd {
  name: string
  ends?: number
}

export interface ClaimRow {
  key: string
  cluster: string
  namespace: string
  name: string
  state: string
  reason: string
  created?: number
  bytes: number
  excludedUntil?: number
  freshness?: Freshness
}

export interface ClusterRow {
  name: string
  state: string
  freshness?: Freshness
  version: string
  kubernetesVersion: string
  connectedSince?: number
  repositories: number
  backups: number
  backupsUnwell: number
  clusterUid: string
  reason: string
  complete: boolean
}

export interface CommandOptions {
  cluster: string
  requestId: string
  beginWithinMs: number
}

export interface Condition {
  type: string
  status: string
  reason: string
  message: string
  lastTransition?: number
}

export interface CoverageRequest {
  clusters: string[]
  namespaces: string[]
  states: string[]
  text: string
  pageSize: number
  pageToken: string
}

export interface CoverageResponse {
  asOf?: number
  claims: number
  covered: number
  uncovered: number
  new: number
  excluded: number
  unknownClusters: number
  unknown: string[]
  cut: boolean
  rows: ClaimRow[]
  total: number
  nextPageToken: string
  partialClusters: number
  partial: string[]
  staleClusters: number
  stale: string[]
  coveredStale: number
}

export interface CreateJoinTokenRequest {
  cluster: string
  validMs: number
}

export interface CreateJoinTokenResponse {
  token: string
  expires?: number
  pin: string
  enrolUrl: string
  linkUrl: string
  knownUid: string
}

export interface CreateLoginRequest {
}

export interface CreateLoginResponse {
  token: string
  expires?: number
}

export interface CreateRestore {
  backup?: ObjectName
  snapshot: string
  claim: string
  path: string
  newClaim: string
  size: string
  storageClass: string
  snapshotPath: string
  includePaths: string[]
  excludePaths: string[]
}

export interface CreateRestoreRequest {
  options?: CommandOptions
  command?: CreateRestore
}

export interface DecideBindingRequest {
  repository: string
  cluster: string
  accept: boolean
}

export interface DecideBindingResponse {
  effect: string
}

export interface DecidePlanRequest {
  plan: string
  hash: string
  approve: boolean
}

export interface DecidePlanResponse {
}

export interface Decision {
  at?: number
  who: string
  what: string
  subject: string
  resticId: string
  before: string
  after: string
  id: number
  cluster: string
  namespace: string
  hash: Uint8Array
}

export interface FetchFile {
  snapshot: string
  path: string
}

export interface FetchFileRequest {
  options?: ReadOptions
  question?: FetchFile
}

export interface FileRow {
  path: string
  type: string
  size: number
  modified?: number
}

export interface Filter {
  clusters: string[]
  namespaces: string[]
  states: string[]
  text: string
}

export interface FindFiles {
  snapshot: string
  pattern: string
}

export interface FindFilesRequest {
  options?: ReadOptions
  question?: FindFiles
}

export interface FleetPause {
  since?: number
  who: string
  reason: string
}

export interface ForgetClusterRequest {
  cluster: string
  confirm: boolean
}

export interface ForgetClusterResponse {
  policies: string[]
  repositories: number
  backups: number
  lastHeard?: number
  forgotten: boolean
}

export interface Freshness {
  stale: boolean
  lastHeard?: number
}

export interface GetOperationRequest {
  id: string
}

export interface GetRequest {
  collection: Collection
  key: string
}

export interface GetResponse {
  revision: number
  asOf?: number
  row?: Row
  resources: Resource[]
  relations: Relation[]
  related: number
  days: RunDay[]
  events: ActivityEntry[]
}

export interface Grant {
  verbs: string[]
  scope?: Scope
}

export interface HealthRequest {
}

export interface HealthResponse {
  asOf?: number
  version: string
  started?: number
  epoch: number
  troubles: Trouble[]
  storeWell: boolean
  storeBytes: number
  storeCopied?: number
  sessions: number
  watches: number
  versions: VersionCount[]
  certificates: CertificateEnd[]
}

export interface HistoryPoint {
  at?: number
  storedBytes: number
  uncompressedBytes: number
  snapshots: number
  files?: number
  sources: SourceCount[]
}

export interface HistoryRequest {
  repository: string
  days: number
}

export interface HistoryResponse {
  asOf?: number
  resticId: string
  repository: string
  stepSeconds: number
  points: HistoryPoint[]
}

export interface HostStatistics {
  host: string
  snapshots: number
  latest?: number
}

export interface InviteRequest {
  name: string
  groups: string[]
}

export interface InviteResponse {
  token: string
  expires?: number
  pin: string
}

export interface ListBindingsRequest {
}

export interface ListBindingsResponse {
  asOf?: number
  bindings: RoleBinding[]
  sessions: PersonSession[]
  revoked: RevokedCertificate[]
}

export interface ListFolder {
  snapshot: string
  path: string
}

export interface ListFolderRequest {
  options?: ReadOptions
  question?: ListFolder
}

export interface ListOperationsRequest {
  clusters: string[]
  open: boolean
  limit: number
  before: string
}

export interface ListOperationsResponse {
  asOf?: number
  operations: Operation[]
  nextPage: string
}

export interface ListRequest {
  collection: Collection
  filter?: Filter
  sort: string
  pageSize: number
  pageToken: string
}

export interface ListResponse {
  revision: number
  asOf?: number
  rows: Row[]
  total: number
  nextPageToken: string
}

export interface ListSnapshots {
  host: string
  tags: string[]
  limit: number
}

export interface ListSnapshotsRequest {
  options?: ReadOptions
  question?: ListSnapshots
}

export interface Lock {
  resticId: string
  repository: string
  state: string
  token: number
  cluster: string
  subject: string
  heldMs: number
  renewedMs: number
  endsMs: number
  waiters: LockWaiter[]
  revoked: boolean
  resticLocks: ResticLock[]
  url: string
  progress?: RunProgress
}

export interface LockWaiter {
  cluster: string
  subject: string
  waitedMs: number
  reason: string
}

export interface LocksRequest {
  repository: string
}

export interface LocksResponse {
  asOf?: number
  locks: Lock[]
}

export interface LoginRequest {
  token: string
  login: string
  trusts: Uint8Array[]
  code: string
}

export interface LoginResponse {
  name: string
  session: string
  expires?: number
  waitMs: number
}

export interface LogoutRequest {
}

export interface LogoutResponse {
}

export interface MaintenanceWindow {
  schedule: string
  timezone: string
  lengthMs: number
}

export interface ObjectName {
  namespace: string
  name: string
}

export interface Operation {
  id: string
  cluster: string
  what: string
  subject: string
  who: string
  created?: number
  expires?: number
  state: CommandState
  text: string
  object: string
  changed?: number
  ended?: number
  cancelledBy: string
  connected: boolean
}

export interface OperationOutcome {
  result: string
  reason: string
  message: string
  plan: string
  snapshots: number
  planned: number
  removed: number
  keptByOthers: number
  bytesBefore: number
  bytesAfter: number
  pruned: boolean
  unmatched: string[]
  policies: string[]
  previewed: number
  faults: PolicyFault[]
  removedLocks: string[]
  shown: string[]
  left: Baseline[]
  lockLeft: boolean
  checked: number[]
  checkedOf: number
  brokenPacks: string[]
  matched: Baseline[]
  oldKey: string
  newKey: string
}

export interface PersonBehind {
  name: string
  expires?: number
}

export interface PersonSession {
  name: string
  groups: string[]
  method: string
  created?: number
  expires?: number
}

export interface Plan {
  id: string
  resticId: string
  repository: string
  hash: string
  state: string
  made?: number
  cluster: string
  subject: string
  token: number
  outcome?: OperationOutcome
  document: string
  decidedBy: string
  decided?: number
  documentMissing: string
}

export interface PlansRequest {
  plan: string
  limit: number
  before: string
}

export interface PlansResponse {
  asOf?: number
  plans: Plan[]
  nextBefore: string
}

export interface PolicyFault {
  source: string
  text: string
}

export interface PolicyRow {
  cluster: string
  namespace: string
  name: string
  state: string
  reason: string
  policy?: PolicyState
  ready: boolean
  freshness?: Freshness
  nextRun?: number
}

export interface PolicyState {
  repositoryNamespace: string
  repositoryName: string
  resticId: string
  spec?: RetentionPolicySpec
  schedule: string
  suspended: boolean
  lastRun?: number
  lastResult: string
  progress?: RunProgress
  timezone?: string
  allowedWindow?: MaintenanceWindow
}

export interface PreviewRetention {
  policy?: ObjectName
}

export interface PreviewRetentionRequest {
  options?: CommandOptions
  command?: PreviewRetention
}

export interface ReadOptions {
  cluster: string
  repository?: ObjectName
}

export interface Relation {
  what: string
  collection: Collection
  key: string
  name: string
  state: string
}

export interface ReleaseLockRequest {
  repository: string
  token: number
  checked: boolean
}

export interface ReleaseLockResponse {
}

export interface RepositoryBinding {
  cluster: string
  namespace: string
  name: string
  url: string
  ready: boolean
  reason: string
  message: string
  freshness?: Freshness
  binding: string
  bindingReason: string
}

export interface RepositoryRow {
  resticId: string
  name: string
  state: string
  bindings: RepositoryBinding[]
  clusters: string[]
  statistics?: RepositoryStatistics
  statisticsFrom: string
  freshness?: Freshness
  backups: number
  policies: number
  alarm: string
  collector: string
  collectorEpoch: number
}

export interface RepositoryStatistics {
  asOf?: number
  storedBytes: number
  uncompressedBytes: number
  snapshots: number
  hosts: HostStatistics[]
  files?: number
}

export interface Resource {
  place: string
  uid: string
  generation: number
  created?: number
  conditions: Condition[]
}

export interface ResticLock {
  id: string
  exclusive: boolean
  user: string
  host: string
  created?: number
  keptBecause: string
  unchangedSince?: number
}

export interface RestoreRow {
  cluster: string
  namespace: string
  name: string
  state: string
  reason: string
  restore?: RestoreState
  freshness?: Freshness
  created?: number
}

export interface RestoreState {
  repositoryNamespace: string
  repositoryName: string
  resticId: string
  phase: string
  snapshotId: string
  started?: number
  finished?: number
  files: number
  bytes: number
  target: string
  progress?: RunProgress
}

export interface ResumeRequest {
  options?: CommandOptions
  command?: ResumeResource
}

export interface ResumeResource {
  backup?: ObjectName
  policy?: ObjectName
}

export interface RetentionPolicySpec {
  source: string
  generation: number
  preview: boolean
  rules: RetentionRule[]
  prune: boolean
  maxRemovedPercent: number
  rulesVersion: number
  ownClusterOnly: boolean
  unclear: string
  suspended: boolean
  uid: string
  fingerprint: string
}

export interface RetentionRule {
  tags: string[]
  hostname: string
  keepLast: number
  keepHourly: number
  keepDaily: number
  keepWeekly: number
  keepMonthly: number
  keepYearly: number
  keepWithin: string
  keepWithinHourly: string
  keepWithinDaily: string
  keepWithinWeekly: string
  keepWithinMonthly: string
  keepWithinYearly: string
  keepTags: string[]
  groupBy: string[]
}

export interface RevokeCertificateRequest {
  name: string
  serial: string
}

export interface RevokeCertificateResponse {
}

export interface RevokeRequest {
  name: string
}

export interface RevokeResponse {
  sessions: number
}

export interface RevokedCertificate {
  name: string
  serial: string
  at?: number
  by: string
}

export interface RoleBinding {
  id: number
  user: string
  group: string
  rights: string
  scope?: Scope
  created?: number
  createdBy: string
}

export interface RotateAuthorityRequest {
  step: RotationStep
  force: boolean
}

export interface RotateAuthorityResponse {
  state: string
  behind: string[]
  authorities: string[]
  people: PersonBehind[]
}

export interface Row {
  key: string
  cluster?: ClusterRow
  repository?: RepositoryRow
  backup?: BackupRow
  policy?: PolicyRow
  restore?: RestoreRow
}

export interface RunBackup {
  backup?: ObjectName
}

export interface RunBackupRequest {
  options?: CommandOptions
  command?: RunBackup
}

export interface RunCheck {
  repository?: ObjectName
}

export interface RunCheckRequest {
  options?: CommandOptions
  command?: RunCheck
}

export interface RunDay {
  day?: number
  succeeded: number
  partial: number
  failed: number
  bytesAdded: number
}

export interface RunProgress {
  job: string
  asOf?: number
  percent?: number
  bytesDone?: number
  bytesTotal?: number
  filesDone?: number
  filesTotal?: number
  step: string
  estimatedCompletion?: number
}

export interface RunRetention {
  policy?: ObjectName
}

export interface RunRetentionRequest {
  options?: CommandOptions
  command?: RunRetention
}

export interface Scope {
  clusters: string[]
  namespaces: string[]
  repositories: string[]
}

export interface SnapshotRow {
  id: string
  time?: number
  host: string
  tags: string[]
  paths: string[]
  bytes: number
  files: number
}

export interface SourceCount {
  cluster: string
  host: string
  snapshots: number
}

export interface StatusRequest {
}

export interface StatusResponse {
  revision: number
  asOf?: number
  verdict: string
  clusters: number
  clustersStale: number
  repositories: number
  backups: number
  backupsByState: Record<string, number>
  storedBytes: number
  needsYou: Attention[]
  matters: number
  others: number
  restNext: string
  pause?: FleetPause
  reason: string
}

export interface StoragePoint {
  at?: number
  storedBytes: number
  repositories: number
}

export interface StorageRequest {
  days: number
  capacityBytes: number
}

export interface StorageResponse {
  asOf?: number
  storedBytes: number
  repositories: number
  unknown: number
  growthUnknown: number
  growthPerMonth?: number
  full?: number
  fullUnknown: string
  points: StoragePoint[]
  rows: StorageRow[]
}

export interface StorageRow {
  resticId: string
  name: string
  storedBytes?: number
  uncompressedBytes?: number
  snapshots: number
  at?: number
  growthPerMonth?: number
  growthUnknown: string
}

export interface SuspendRequest {
  options?: CommandOptions
  command?: SuspendResource
}

export interface SuspendResource {
  backup?: ObjectName
  policy?: ObjectName
}

export interface Trouble {
  what: string
  text: string
  next: string
}

export interface UnbanClusterRequest {
  cluster: string
  rejoin: boolean
}

export interface UnbanClusterResponse {
}

export interface UnbindRequest {
  id: number
}

export interface UnbindResponse {
}

export interface UnlockRepository {
  repository?: ObjectName
}

export interface UnlockRequest {
  options?: CommandOptions
  command?: UnlockRepository
}

export interface VerifyAuditRequest {
  known: number
}

export interface VerifyAuditResponse {
  asOf?: number
  entries: number
  anchor: number
  head: number
  hash: Uint8Array
  faultId: number
  fault: string
  knownHash: Uint8Array
}

export interface VersionCount {
  version: string
  clusters: number
}

export interface WatchEvent {
  revision: number
  asOf?: number
  upsert?: Row
  removed?: string
  bookmark?: Bookmark
  heartbeat?: WatchHeartbeat
  begin?: Begin
}

export interface WatchHeartbeat {
}

export interface WatchOperationRequest {
  id: string
}

export interface WatchRequest {
  collection: Collection
  filter?: Filter
  after: number
  view: Uint8Array
}

export interface WhoAmIRequest {
}

export interface WhoAmIResponse {
  name: string
  groups: string[]
  method: string
  expires?: number
  grants: Grant[]
}

/** Fields of messages as "<number><name><sort><kind>": `:` always there, `?` perhaps, `*` a list, `%` a map. */
export const tables: Record<string, string> = {
  ActivityKind: '=0unspecified 1backup 2restore 3maintenance 4operation 5decision',
  ActivityResult: '=0unspecified 1failed 2partial 3open 4done',
  BackupResult: '=0unspecified 1succeeded 2partially-failed 3failed',
  Collection: '=0unspecified 1clusters 2repositories 3backups 4policies 5restores',
  CommandState: '=0unspecified 1waiting 2sent 3accepted 4running 5done 6failed 7refused 8expired 9cancelled',
  RotationStep: '=0unspecified 1begin 2activate 3retire',
  AcceptClusterRequest: '1cluster:s 2clusterUid:s',
  AcceptClusterResponse: '',
  ActivityEntry: '1kind:ActivityKind 2at?t 3began?t 4ended?t 5cluster:s 6subject:s 7what:s 8result:ActivityResult 9text:s 10who:s 11resticId:s 12id:s 13bytesAdded:n',
  ActivityRequest: '1clusters*s 2kinds*ActivityKind 3since?t 4limit:n 5before:s',
  ActivityResponse: '1asOf?t 2entries*ActivityEntry 3nextBefore:s',
  AnswerPart: '1snapshots*SnapshotRow 2files*FileRow 3data:y 4cut:b',
  Attention: '1state:s 2subject:s 3detail:s 4count:n 5next:s',
  AuditEntry: '1token:n 2resticId:s 3repository:s 4cluster:s 5subject:s 6granted?t 7ended?t 8outcome?OperationOutcome 9policies*s 10covered*s 11plan:s',
  AuditRequest: '1repository:s 2limit:n 3before:s 4who:s 5what:s 6cluster:s 7since?t 8after?n 9follow:s',
  AuditResponse: '1asOf?t 2entries*AuditEntry 3decisions*Decision 4nextBefore:s 5last:n 6follow:s',
  AuthoritiesRequest: '1kept*y',
  AuthoritiesResponse: '1authorities*y',
  BackupRow: '1cluster:s 2namespace:s 3name:s 4state:s 5reason:s 6backup?BackupState 7ready:b 8freshness?Freshness 9due?t 90since?t',
  BackupRun: '1started?t 2finished?t 3result:BackupResult 4reason:s 5message:s 6snapshotId:s 7bytesAdded:n 8bytesProcessed:n 9filesProcessed:n',
  BackupState: '1repositoryNamespace:s 2repositoryName:s 3resticId:s 4schedule:s 5timezone:s 6suspended:b 7lastRun?BackupRun 8lastSuccess?t 9nextRun?t 10runsTotal:n 11runsSucceeded:n 12runsFailed:n 13running:b 14source:s 15underWay:b 50progress?RunProgress',
  BanClusterRequest: '1cluster:s 2reason:s',
  BanClusterResponse: '1wasConnected:b',
  Baseline: '1key:s 2left:n',
  Begin: '',
  BeginLoginRequest: '1redirect:s',
  BeginLoginResponse: '1login:s 2address:s 3wholeAddress:s 4code:s 5waitMs:n 6expires?t 7state:s',
  BindRequest: '1user:s 2group:s 3rights:s 4scope?Scope',
  BindResponse: '1id:n',
  Bookmark: '1view:y',
  CancelOperationRequest: '1id:s',
  CertificateEnd: '1name:s 2ends?t',
  ClaimRow: '1key:s 2cluster:s 3namespace:s 4name:s 5state:s 6reason:s 7created?t 8bytes:n 9excludedUntil?t 10freshness?Freshness',
  ClusterRow: '1name:s 2state:s 3freshness?Freshness 4version:s 5kubernetesVersion:s 6connectedSince?t 7repositories:n 8backups:n 9backupsUnwell:n 10clusterUid:s 11reason:s 12complete:b',
  CommandOptions: '1cluster:s 2requestId:s 3beginWithinMs:n',
  Condition: '1type:s 2status:s 3reason:s 4message:s 5lastTransition?t',
  CoverageRequest: '1clusters*s 2namespaces*s 3states*s 4text:s 5pageSize:n 6pageToken:s',
  CoverageResponse: '1asOf?t 2claims:n 3covered:n 4uncovered:n 5new:n 6excluded:n 7unknownClusters:n 8unknown*s 9cut:b 10rows*ClaimRow 11total:n 12nextPageToken:s 13partialClusters:n 14partial*s 15staleClusters:n 16stale*s 17coveredStale:n',
  CreateJoinTokenRequest: '1cluster:s 2validMs:n',
  CreateJoinTokenResponse: '1token:s 2expires?t 3pin:s 4enrolUrl:s 5linkUrl:s 6knownUid:s',
  CreateLoginRequest: '',
  CreateLoginResponse: '1token:s 2expires?t',
  CreateRestore: '1backup?ObjectName 2snapshot:s 3claim:s 4path:s 5newClaim:s 6size:s 7storageClass:s 8snapshotPath:s 9includePaths*s 10excludePaths*s',
  CreateRestoreRequest: '1options?CommandOptions 2command?CreateRestore',
  DecideBindingRequest: '1repository:s 2cluster:s 3accept:b',
  DecideBindingResponse: '1effect:s',
  DecidePlanRequest: '1plan:s 2hash:s 3approve:b',
  DecidePlanResponse: '',
  Decision: '1at?t 2who:s 3what:s 4subject:s 5resticId:s 6before:s 7after:s 8id:n 9cluster:s 10namespace:s 11hash:y',
  FetchFile: '1snapshot:s 2path:s',
  FetchFileRequest: '1options?ReadOptions 2question?FetchFile',
  FileRow: '1path:s 2type:s 3size:n 4modified?t',
  Filter: '1clusters*s 2namespaces*s 3states*s 4text:s',
  FindFiles: '1snapshot:s 2pattern:s',
  FindFilesRequest: '1options?ReadOptions 2question?FindFiles',
  FleetPause: '1since?t 2who:s 3reason:s',
  ForgetClusterRequest: '1cluster:s 2confirm:b',
  ForgetClusterResponse: '1policies*s 2repositories:n 3backups:n 4lastHeard?t 5forgotten:b',
  Freshness: '1stale:b 2lastHeard?t',
  GetOperationRequest: '1id:s',
  GetRequest: '1collection:Collection 2key:s',
  GetResponse: '1revision:n 2asOf?t 3row?Row 4resources*Resource 5relations*Relation 6related:n 7days*RunDay 8events*ActivityEntry',
  Grant: '1verbs*s 2scope?Scope',
  HealthRequest: '',
  HealthResponse: '1asOf?t 2version:s 3started?t 4epoch:n 5troubles*Trouble 6storeWell:b 7storeBytes:n 8storeCopied?t 9sessions:n 10watches:n 11versions*VersionCount 12certificates*CertificateEnd',
  HistoryPoint: '1at?t 2storedBytes:n 3uncompressedBytes:n 4snapshots:n 5files?n 6sources*SourceCount',
  HistoryRequest: '1repository:s 2days:n',
  HistoryResponse: '1asOf?t 2resticId:s 3repository:s 4stepSeconds:n 5points*HistoryPoint',
  HostStatistics: '1host:s 2snapshots:n 3latest?t',
  InviteRequest: '1name:s 2groups*s',
  InviteResponse: '1token:s 2expires?t 3pin:s',
  ListBindingsRequest: '',
  ListBindingsResponse: '1asOf?t 2bindings*RoleBinding 3sessions*PersonSession 4revoked*RevokedCertificate',
  ListFolder: '1snapshot:s 2path:s',
  ListFolderRequest: '1options?ReadOptions 2question?ListFolder',
  ListOperationsRequest: '1clusters*s 2open:b 3limit:n 4before:s',
  ListOperationsResponse: '1asOf?t 2operations*Operation 3nextPage:s',
  ListRequest: '1collection:Collection 2filter?Filter 3sort:s 4pageSize:n 5pageToken:s',
  ListResponse: '1revision:n 2asOf?t 3rows*Row 4total:n 5nextPageToken:s',
  ListSnapshots: '1host:s 2tags*s 3limit:n',
  ListSnapshotsRequest: '1options?ReadOptions 2question?ListSnapshots',
  Lock: '1resticId:s 2repository:s 3state:s 4token:n 5cluster:s 6subject:s 7heldMs:n 8renewedMs:n 9endsMs:n 10waiters*LockWaiter 11revoked:b 20resticLocks*ResticLock 21url:s 50progress?RunProgress',
  LockWaiter: '1cluster:s 2subject:s 3waitedMs:n 4reason:s',
  LocksRequest: '1repository:s',
  LocksResponse: '1asOf?t 2locks*Lock',
  LoginRequest: '1token:s 2login:s 3trusts*y 4code:s',
  LoginResponse: '1name:s 2session:s 3expires?t 4waitMs:n',
  LogoutRequest: '',
  LogoutResponse: '',
  MaintenanceWindow: '1schedule:s 2timezone:s 3lengthMs:n',
  ObjectName: '1namespace:s 2name:s',
  Operation: '1id:s 2cluster:s 3what:s 4subject:s 5who:s 6created?t 7expires?t 8state:CommandState 9text:s 10object:s 11changed?t 12ended?t 13cancelledBy:s 14connected:b',
  OperationOutcome: '1result:s 2reason:s 3message:s 4plan:s 5snapshots:n 6planned:n 7removed:n 8keptByOthers:n 9bytesBefore:n 10bytesAfter:n 11pruned:b 12unmatched*s 13policies*s 14previewed:n 15faults*PolicyFault 16removedLocks*s 17shown*s 18left*Baseline 20lockLeft:b 21checked*n 22checkedOf:n 23brokenPacks*s 24matched*Baseline 40oldKey:s 41newKey:s',
  PersonBehind: '1name:s 2expires?t',
  PersonSession: '1name:s 2groups*s 3method:s 4created?t 5expires?t',
  Plan: '1id:s 2resticId:s 3repository:s 4hash:s 5state:s 6made?t 7cluster:s 8subject:s 9token:n 10outcome?OperationOutcome 11document:s 12decidedBy:s 13decided?t 14documentMissing:s',
  PlansRequest: '1plan:s 2limit:n 3before:s',
  PlansResponse: '1asOf?t 2plans*Plan 3nextBefore:s',
  PolicyFault: '1source:s 2text:s',
  PolicyRow: '1cluster:s 2namespace:s 3name:s 4state:s 5reason:s 6policy?PolicyState 7ready:b 8freshness?Freshness 9nextRun?t',
  PolicyState: '1repositoryNamespace:s 2repositoryName:s 3resticId:s 4spec?RetentionPolicySpec 5schedule:s 6suspended:b 7lastRun?t 8lastResult:s 50progress?RunProgress 80timezone?s 81allowedWindow?MaintenanceWindow',
  PreviewRetention: '1policy?ObjectName',
  PreviewRetentionRequest: '1options?CommandOptions 2command?PreviewRetention',
  ReadOptions: '1cluster:s 2repository?ObjectName',
  Relation: '1what:s 2collection:Collection 3key:s 4name:s 5state:s',
  ReleaseLockRequest: '1repository:s 2token:n 3checked:b',
  ReleaseLockResponse: '',
  RepositoryBinding: '1cluster:s 2namespace:s 3name:s 4url:s 5ready:b 6reason:s 7message:s 8freshness?Freshness 9binding:s 10bindingReason:s',
  RepositoryRow: '1resticId:s 2name:s 3state:s 4bindings*RepositoryBinding 5clusters*s 6statistics?RepositoryStatistics 7statisticsFrom:s 8freshness?Freshness 9backups:n 10policies:n 11alarm:s 40collector:s 41collectorEpoch:n',
  RepositoryStatistics: '1asOf?t 2storedBytes:n 3uncompressedBytes:n 4snapshots:n 5hosts*HostStatistics 6files?n',
  Resource: '1place:s 2uid:s 3generation:n 4created?t 5conditions*Condition',
  ResticLock: '1id:s 2exclusive:b 3user:s 4host:s 5created?t 7keptBecause:s 8unchangedSince?t',
  RestoreRow: '1cluster:s 2namespace:s 3name:s 4state:s 5reason:s 6restore?RestoreState 7freshness?Freshness 8created?t',
  RestoreState: '1repositoryNamespace:s 2repositoryName:s 3resticId:s 4phase:s 5snapshotId:s 6started?t 7finished?t 8files:n 9bytes:n 10target:s 50progress?RunProgress',
  ResumeRequest: '1options?CommandOptions 2command?ResumeResource',
  ResumeResource: '1backup?ObjectName 2policy?ObjectName',
  RetentionPolicySpec: '1source:s 2generation:n 3preview:b 4rules*RetentionRule 5prune:b 6maxRemovedPercent:n 7rulesVersion:n 8ownClusterOnly:b 9unclear:s 10suspended:b 11uid:s 12fingerprint:s',
  RetentionRule: '1tags*s 2hostname:s 3keepLast:n 4keepHourly:n 5keepDaily:n 6keepWeekly:n 7keepMonthly:n 8keepYearly:n 9keepWithin:s 10keepWithinHourly:s 11keepWithinDaily:s 12keepWithinWeekly:s 13keepWithinMonthly:s 14keepWithinYearly:s 15keepTags*s 16groupBy*s',
  RevokeCertificateRequest: '1name:s 2serial:s',
  RevokeCertificateResponse: '',
  RevokeRequest: '1name:s',
  RevokeResponse: '1sessions:n',
  RevokedCertificate: '1name:s 2serial:s 3at?t 4by:s',
  RoleBinding: '1id:n 2user:s 3group:s 4rights:s 5scope?Scope 6created?t 7createdBy:s',
  RotateAuthorityRequest: '1step:RotationStep 2force:b',
  RotateAuthorityResponse: '1state:s 2behind*s 3authorities*s 4people*PersonBehind',
  Row: '1key:s 2cluster?ClusterRow 3repository?RepositoryRow 4backup?BackupRow 90policy?PolicyRow 91restore?RestoreRow',
  RunBackup: '1backup?ObjectName',
  RunBackupRequest: '1options?CommandOptions 2command?RunBackup',
  RunCheck: '1repository?ObjectName',
  RunCheckRequest: '1options?CommandOptions 2command?RunCheck',
  RunDay: '1day?t 2succeeded:n 3partial:n 4failed:n 5bytesAdded:n',
  RunProgress: '1job:s 2asOf?t 3percent?n 4bytesDone?n 5bytesTotal?n 6filesDone?n 7filesTotal?n 8step:s 9estimatedCompletion?t',
  RunRetention: '1policy?ObjectName',
  RunRetentionRequest: '1options?CommandOptions 2command?RunRetention',
  Scope: '1clusters*s 2namespaces*s 3repositories*s',
  SnapshotRow: '1id:s 2time?t 3host:s 4tags*s 5paths*s 6bytes:n 7files:n',
  SourceCount: '1cluster:s 2host:s 3snapshots:n',
  StatusRequest: '',
  StatusResponse: '1revision:n 2asOf?t 3verdict:s 4clusters:n 5clustersStale:n 6repositories:n 7backups:n 8backupsByState%n 9storedBytes:n 10needsYou*Attention 11matters:n 12others:n 13restNext:s 40pause?FleetPause 90reason:s',
  StoragePoint: '1at?t 2storedBytes:n 3repositories:n',
  StorageRequest: '1days:n 2capacityBytes:n',
  StorageResponse: '1asOf?t 2storedBytes:n 3repositories:n 4unknown:n 5growthUnknown:n 6growthPerMonth?n 7full?t 8fullUnknown:s 9points*StoragePoint 10rows*StorageRow',
  StorageRow: '1resticId:s 2name:s 3storedBytes?n 4uncompressedBytes?n 5snapshots:n 6at?t 7growthPerMonth?n 8growthUnknown:s',
  SuspendRequest: '1options?CommandOptions 2command?SuspendResource',
  SuspendResource: '1backup?ObjectName 2policy?ObjectName',
  Trouble: '1what:s 2text:s 3next:s',
  UnbanClusterRequest: '1cluster:s 2rejoin:b',
  UnbanClusterResponse: '',
  UnbindRequest: '1id:n',
  UnbindResponse: '',
  UnlockRepository: '1repository?ObjectName',
  UnlockRequest: '1options?CommandOptions 2command?UnlockRepository',
  VerifyAuditRequest: '1known:n',
  VerifyAuditResponse: '1asOf?t 2entries:n 3anchor:n 4head:n 5hash:y 6faultId:n 7fault:s 8knownHash:y',
  VersionCount: '1version:s 2clusters:n',
  WatchEvent: '1revision:n 2asOf?t 3upsert?Row 4removed?s 5bookmark?Bookmark 6heartbeat?WatchHeartbeat 7begin?Begin',
  WatchHeartbeat: '',
  WatchOperationRequest: '1id:s',
  WatchRequest: '1collection:Collection 2filter?Filter 3after:n 4view:y',
  WhoAmIRequest: '',
  WhoAmIResponse: '1name:s 2groups*s 3method:s 4expires?t 5grants*Grant',
}

export const FleetView = {
  list: method<ListRequest, ListResponse>('FleetView/List', 'ListRequest', 'ListResponse'),
  watch: stream<WatchRequest, WatchEvent>('FleetView/Watch', 'WatchRequest', 'WatchEvent'),
  status: method<StatusRequest, StatusResponse>('FleetView/Status', 'StatusRequest', 'StatusResponse'),
  locks: method<LocksRequest, LocksResponse>('FleetView/Locks', 'LocksRequest', 'LocksResponse'),
  releaseLock: method<ReleaseLockRequest, ReleaseLockResponse>('FleetView/ReleaseLock', 'ReleaseLockRequest', 'ReleaseLockResponse'),
  plans: method<PlansRequest, PlansResponse>('FleetView/Plans', 'PlansRequest', 'PlansResponse'),
  decidePlan: method<DecidePlanRequest, DecidePlanResponse>('FleetView/DecidePlan', 'DecidePlanRequest', 'DecidePlanResponse'),
  audit: method<AuditRequest, AuditResponse>('FleetView/Audit', 'AuditRequest', 'AuditResponse'),
  decideBinding: method<DecideBindingRequest, DecideBindingResponse>('FleetView/DecideBinding', 'DecideBindingRequest', 'DecideBindingResponse'),
  forgetCluster: method<ForgetClusterRequest, ForgetClusterResponse>('FleetView/ForgetCluster', 'ForgetClusterRequest', 'ForgetClusterResponse'),
  acceptCluster: method<AcceptClusterRequest, AcceptClusterResponse>('FleetView/AcceptCluster', 'AcceptClusterRequest', 'AcceptClusterResponse'),
  history: method<HistoryRequest, HistoryResponse>('FleetView/History', 'HistoryRequest', 'HistoryResponse'),
  get: method<GetRequest, GetResponse>('FleetView/Get', 'GetRequest', 'GetResponse'),
  activity: method<ActivityRequest, ActivityResponse>('FleetView/Activity', 'ActivityRequest', 'ActivityResponse'),
  health: method<HealthRequest, HealthResponse>('FleetView/Health', 'HealthRequest', 'HealthResponse'),
  coverage: method<CoverageRequest, CoverageResponse>('FleetView/Coverage', 'CoverageRequest', 'CoverageResponse'),
  storage: method<StorageRequest, StorageResponse>('FleetView/Storage', 'StorageRequest', 'StorageResponse'),
}

export const FleetControl = {
  runBackup: method<RunBackupRequest, Operation>('FleetControl/RunBackup', 'RunBackupRequest', 'Operation'),
  runRetention: method<RunRetentionRequest, Operation>('FleetControl/RunRetention', 'RunRetentionRequest', 'Operation'),
  previewRetention: method<PreviewRetentionRequest, Operation>('FleetControl/PreviewRetention', 'PreviewRetentionRequest', 'Operation'),
  runCheck: method<RunCheckRequest, Operation>('FleetControl/RunCheck', 'RunCheckRequest', 'Operation'),
  unlock: method<UnlockRequest, Operation>('FleetControl/Unlock', 'UnlockRequest', 'Operation'),
  suspend: method<SuspendRequest, Operation>('FleetControl/Suspend', 'SuspendRequest', 'Operation'),
  resume: method<ResumeRequest, Operation>('FleetControl/Resume', 'ResumeRequest', 'Operation'),
  createRestore: method<CreateRestoreRequest, Operation>('FleetControl/CreateRestore', 'CreateRestoreRequest', 'Operation'),
  listOperations: method<ListOperationsRequest, ListOperationsResponse>('FleetControl/ListOperations', 'ListOperationsRequest', 'ListOperationsResponse'),
  getOperation: method<GetOperationRequest, Operation>('FleetControl/GetOperation', 'GetOperationRequest', 'Operation'),
  cancelOperation: method<CancelOperationRequest, Operation>('FleetControl/CancelOperation', 'CancelOperationRequest', 'Operation'),
  watchOperation: stream<WatchOperationRequest, Operation>('FleetControl/WatchOperation', 'WatchOperationRequest', 'Operation'),
  listSnapshots: stream<ListSnapshotsRequest, AnswerPart>('FleetControl/ListSnapshots', 'ListSnapshotsRequest', 'AnswerPart'),
  listFolder: stream<ListFolderRequest, AnswerPart>('FleetControl/ListFolder', 'ListFolderRequest', 'AnswerPart'),
  findFiles: stream<FindFilesRequest, AnswerPart>('FleetControl/FindFiles', 'FindFilesRequest', 'AnswerPart'),
  fetchFile: stream<FetchFileRequest, AnswerPart>('FleetControl/FetchFile', 'FetchFileRequest', 'AnswerPart'),
}

export const FleetAdmin = {
  beginLogin: method<BeginLoginRequest, BeginLoginResponse>('FleetAdmin/BeginLogin', 'BeginLoginRequest', 'BeginLoginResponse'),
  login: method<LoginRequest, LoginResponse>('FleetAdmin/Login', 'LoginRequest', 'LoginResponse'),
  logout: method<LogoutRequest, LogoutResponse>('FleetAdmin/Logout', 'LogoutRequest', 'LogoutResponse'),
  whoAmI: method<WhoAmIRequest, WhoAmIResponse>('FleetAdmin/WhoAmI', 'WhoAmIRequest', 'WhoAmIResponse'),
  invite: method<InviteRequest, InviteResponse>('FleetAdmin/Invite', 'InviteRequest', 'InviteResponse'),
  createLogin: method<CreateLoginRequest, CreateLoginResponse>('FleetAdmin/CreateLogin', 'CreateLoginRequest', 'CreateLoginResponse'),
  listBindings: method<ListBindingsRequest, ListBindingsResponse>('FleetAdmin/ListBindings', 'ListBindingsRequest', 'ListBindingsResponse'),
  bind: method<BindRequest, BindResponse>('FleetAdmin/Bind', 'BindRequest', 'BindResponse'),
  unbind: method<UnbindRequest, UnbindResponse>('FleetAdmin/Unbind', 'UnbindRequest', 'UnbindResponse'),
  revoke: method<RevokeRequest, RevokeResponse>('FleetAdmin/Revoke', 'RevokeRequest', 'RevokeResponse'),
  revokeCertificate: method<RevokeCertificateRequest, RevokeCertificateResponse>('FleetAdmin/RevokeCertificate', 'RevokeCertificateRequest', 'RevokeCertificateResponse'),
  authorities: method<AuthoritiesRequest, AuthoritiesResponse>('FleetAdmin/Authorities', 'AuthoritiesRequest', 'AuthoritiesResponse'),
  verifyAudit: method<VerifyAuditRequest, VerifyAuditResponse>('FleetAdmin/VerifyAudit', 'VerifyAuditRequest', 'VerifyAuditResponse'),
}

export const FleetClusters = {
  createJoinToken: method<CreateJoinTokenRequest, CreateJoinTokenResponse>('FleetClusters/CreateJoinToken', 'CreateJoinTokenRequest', 'CreateJoinTokenResponse'),
  banCluster: method<BanClusterRequest, BanClusterResponse>('FleetClusters/BanCluster', 'BanClusterRequest', 'BanClusterResponse'),
  unbanCluster: method<UnbanClusterRequest, UnbanClusterResponse>('FleetClusters/UnbanCluster', 'UnbanClusterRequest', 'UnbanClusterResponse'),
  rotateAuthority: method<RotateAuthorityRequest, RotateAuthorityResponse>('FleetClusters/RotateAuthority', 'RotateAuthorityRequest', 'RotateAuthorityResponse'),
}
