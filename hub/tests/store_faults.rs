//! A store whose reads and writes fail while the hub runs: what could not be kept is not answered, and what could not be
//! read is not taken for nothing.

use crate::harness::{Fleet, ID, Spoke, keep_last, member, policy, repository};
use proto::v1::fleet_hub_client::FleetHubClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::manifest_part::Body as Part;
use proto::v1::spoke_message::Body;
use proto::v1::{AuditRequest, LeaseRelease, ManifestsRequest};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

/// A second connection to the hub's store, which makes its statements fail.
struct Saboteur(SqlitePool);

impl Saboteur {
    async fn of(fleet: &Fleet) -> Saboteur {
        let options = SqliteConnectOptions::new()
            .filename(fleet.dir.path().join("fleet.db"))
            .busy_timeout(std::time::Duration::from_secs(10));
        Saboteur(SqlitePool::connect_with(options).await.unwrap())
    }

    async fn execute(&self, statement: &str) {
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(&self.0)
            .await
            .unwrap();
    }

    /// Each of these writes fails from now on; the transaction around it is still open.
    async fn refuse(&self, write: &str) {
        self.raise("ABORT", write).await;
    }

    /// Each of these writes fails from now on, and SQLite ends the transaction around it, as it does when the disk is full
    /// or cannot be read.
    async fn end(&self, write: &str) {
        self.raise("ROLLBACK", write).await;
    }

    async fn raise(&self, what: &str, write: &str) {
        let trigger = format!("CREATE TRIGGER refused {write} BEGIN SELECT RAISE({what}, 'disk full'); END");
        self.execute(&trigger).await;
    }

    async fn allow(&self) {
        self.execute("DROP TRIGGER refused").await;
    }
}

fn failures(fleet: &Fleet) -> u64 {
    fleet.running.hub.metrics.store_failures.get()
}

async fn until_failed(fleet: &Fleet, times: u64) {
    let before = failures(fleet);
    fleet
        .until("a write that fails", async |fleet| {
            failures(fleet) >= before + times
        })
        .await;
}

fn grants(spoke: &Spoke) -> Vec<u64> {
    let token = |told: &Told| match told {
        Told::LeaseGrant(grant) => Some(grant.token),
        _ => None,
    };
    spoke.told.iter().filter_map(token).collect()
}

fn release(token: u64) -> Body {
    Body::LeaseRelease(LeaseRelease {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token,
        ..LeaseRelease::default()
    })
}

async fn released(spoke: &mut Spoke, token: u64) {
    spoke
        .until("the release", |told| {
            matches!(told, Told::LeaseReleased(released) if released.token == token).then_some(())
        })
        .await;
}

async fn states(fleet: &Fleet) -> Vec<(String, u64)> {
    let locks = fleet.locks().await.locks;
    locks.into_iter().map(|lock| (lock.state, lock.token)).collect()
}

#[tokio::test]
async fn a_grant_whose_commit_fails_is_told_to_nobody_and_comes_when_the_store_is_well_again() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let saboteur = Saboteur::of(&fleet).await;
    saboteur.refuse("BEFORE INSERT ON audit").await;
    spoke.ask("job").await;
    // It is tried again and again, each time under another token.
    until_failed(&fleet, 3).await;
    saboteur.allow().await;
    let token = spoke.granted().await.token;
    assert!(token > 3, "each token that could not be kept is spent: {token}");
    assert_eq!(grants(&spoke), [token], "none of the others was told");
    let mut view = fleet.operator().await;
    let audit = view.audit(AuditRequest::default()).await.unwrap().into_inner();
    let kept: Vec<u64> = audit.entries.iter().map(|entry| entry.token).collect();
    assert_eq!(kept, [token], "the audit has what was told, and nothing else");
    // What was answered is what a restart finds.
    drop(spoke);
    let fleet = fleet.restart().await;
    assert_eq!(states(&fleet).await, [("held".to_owned(), token)]);
}

#[tokio::test]
async fn a_store_that_has_ended_a_transaction_by_itself_is_written_again_when_it_is_well() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let saboteur = Saboteur::of(&fleet).await;
    saboteur.end("BEFORE INSERT ON audit").await;
    spoke.ask("job").await;
    until_failed(&fleet, 3).await;
    saboteur.allow().await;
    let token = spoke.granted().await.token;
    assert_eq!(grants(&spoke), [token], "none that was not kept was told");
    spoke.say(release(token)).await;
    released(&mut spoke, token).await;
}

#[tokio::test]
async fn a_release_whose_commit_fails_is_answered_when_it_is_kept() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    spoke.ask("job").await;
    let token = spoke.granted().await.token;
    let saboteur = Saboteur::of(&fleet).await;
    saboteur.refuse("BEFORE UPDATE OF cluster ON lock").await;
    let before = failures(&fleet);
    spoke.say(release(token)).await;
    fleet
        .until("a write that fails", async |fleet| failures(fleet) > before)
        .await;
    // The hub answers this later than it would have answered the release.
    spoke.ask("second").await;
    spoke
        .until("a place in the queue", |told| {
            assert!(!matches!(told, Told::LeaseReleased(_)), "it is not kept");
            matches!(told, Told::LeaseWaiting(waiting) if waiting.operation == "second").then_some(())
        })
        .await;
    saboteur.allow().await;
    // A spoke repeats what was not answered.
    spoke.say(release(token)).await;
    released(&mut spoke, token).await;
    assert!(spoke.granted().await.token > token);
}

#[tokio::test]
async fn a_store_whose_age_cannot_be_read_counts_as_an_older_copy() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    spoke.ask("job").await;
    let token = spoke.granted().await.token;
    spoke.say(release(token)).await;
    released(&mut spoke, token).await;
    drop(spoke);
    let fleet = fleet.restart().await;
    assert_eq!(states(&fleet).await, [], "a restart alone forgets nothing");
    let saboteur = Saboteur::of(&fleet).await;
    saboteur
        .execute("ALTER TABLE hub RENAME COLUMN alive TO unreadable")
        .await;
    let fleet = fleet.restart().await;
    fleet
        .until("a wait for what may have been forgotten", async |fleet| {
            states(fleet).await.iter().any(|(state, _)| state == "delayed")
        })
        .await;
    saboteur
        .execute("ALTER TABLE hub RENAME COLUMN unreadable TO alive")
        .await;
    let mut spoke = member(&fleet).await;
    spoke.ask("job").await;
    assert!(spoke.granted().await.token > token);
}

/// A cluster whose name another one has just taken may be in what cannot be written.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_had_is_not_said_to_be_whole_while_the_store_cannot_be_written() {
    let fleet = Fleet::new().await;
    let spoke = member(&fleet).await;
    let complete = async || {
        let request = ManifestsRequest {
            cluster: "a".to_owned(),
            ..ManifestsRequest::default()
        };
        let mut client = FleetHubClient::new(fleet.view_as("viewer/ann").await);
        let mut parts = client.manifests(request).await.unwrap().into_inner();
        match parts.message().await.unwrap().unwrap().body {
            Some(Part::Head(head)) => head.complete,
            other => panic!("{other:?}"),
        }
    };
    fleet.until("all of it", async |_| complete().await).await;
    let saboteur = Saboteur::of(&fleet).await;
    saboteur.refuse("BEFORE INSERT ON object").await;
    let mut more = policy(keep_last(1));
    "another".clone_into(&mut more.uid);
    more.name.clone_from(&more.uid);
    spoke.tell(vec![repository(ID), policy(keep_last(3)), more]).await;
    fleet.until("a doubt", async |_| !complete().await).await;
    saboteur.allow().await;
    fleet.until("all of it again", async |_| complete().await).await;
}
