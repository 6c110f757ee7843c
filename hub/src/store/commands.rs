//! Commands in SQLite.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::decisions::put_decision;
use super::{Sqlite, StoreError, StoredDecision};
use crate::Millis;
use crate::commands::{Record, State};

/// Where a page of commands begins: the time and id of the last one before it.
pub type CommandCursor = (Millis, String);

/// The log of commands. `Ok` means on disk.
pub trait CommandStore: Send + Sync {
    /// Commands that have not ended, the oldest first.
    fn open_commands(&self) -> BoxFuture<'_, Result<Vec<Record>, StoreError>>;
    /// The command that a person's client has asked for under a request id.
    fn command_of(&self, request: &str) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;
    /// Keeps a new command, and what the person did.
    fn add_command(&self, record: Record, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Keeps where a command stands, and what a person did.
    fn save_command(
        &self,
        record: Record,
        decision: Option<StoredDecision>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Newest first; of these clusters, or of all.
    fn commands(
        &self,
        clusters: Vec<String>,
        open: bool,
        limit: u32,
        before: Option<CommandCursor>,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>>;
    /// The command of an id.
    fn command(&self, id: &str) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;
    /// Commands whose id begins or ends so, at most two.
    fn commands_named(&self, id: &str) -> BoxFuture<'_, Result<Vec<Record>, StoreError>>;
}

const COLUMNS: &str = "id, cluster, body, what, subject, who, request, created, expires, state, text, object, changed, ended, \
     cancelled_by, restic_id, repository";

fn record(row: &SqliteRow) -> Result<Record, StoreError> {
    let state: &str = row.try_get(9)?;
    Ok(Record {
        id: row.try_get(0)?,
        cluster: row.try_get(1)?,
        body: row.try_get(2)?,
        what: row.try_get(3)?,
        subject: row.try_get(4)?,
        who: row.try_get(5)?,
        request: row.try_get(6)?,
        created: row.try_get(7)?,
        expires: row.try_get(8)?,
        // A state of a later version: it has been sent, and only its cluster knows.
        state: State::parse(state).unwrap_or(State::Sent),
        text: row.try_get(10)?,
        object: row.try_get(11)?,
        changed: row.try_get(12)?,
        ended: row.try_get(13)?,
        cancelled_by: row.try_get(14)?,
        restic_id: row.try_get(15)?,
        repository: row.try_get(16)?,
    })
}

impl Sqlite {
    async fn read_open_commands(&self) -> Result<Vec<Record>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM command WHERE ended IS NULL ORDER BY created, id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(record).collect()
    }

    async fn read_command_of(&self, request: String) -> Result<Option<Record>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM command WHERE request = ?");
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(request);
        query
            .fetch_optional(&self.pool)
            .await?
            .as_ref()
            .map(record)
            .transpose()
    }

    async fn insert_command(&self, record: Record, decision: StoredDecision) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let query = format!(
            "INSERT INTO command ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(record.id)
            .bind(record.cluster)
            .bind(record.body)
            .bind(record.what)
            .bind(record.subject)
            .bind(record.who)
            .bind(record.request)
            .bind(record.created)
            .bind(record.expires);
        let query = query
            .bind(record.state.as_str())
            .bind(record.text)
            .bind(record.object)
            .bind(record.changed)
            .bind(record.ended)
            .bind(record.cancelled_by)
            .bind(record.restic_id)
            .bind(record.repository);
        query.execute(&mut *transaction).await?;
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn update_command(
        &self,
        record: Record,
        decision: Option<StoredDecision>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let query = "UPDATE command SET state = ?, text = ?, object = ?, changed = ?, ended = ?, cancelled_by = ? WHERE id = ?";
        let query = sqlx::query(query)
            .bind(record.state.as_str())
            .bind(record.text)
            .bind(record.object)
            .bind(record.changed)
            .bind(record.ended)
            .bind(record.cancelled_by)
            .bind(record.id);
        query.execute(&mut *transaction).await?;
        if let Some(decision) = decision {
            put_decision(&mut transaction, decision).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn read_commands(
        &self,
        clusters: Vec<String>,
        open: bool,
        limit: u32,
        before: Option<CommandCursor>,
    ) -> Result<Vec<Record>, StoreError> {
        let (created, id) = before.unwrap_or((Millis::MAX, String::new()));
        let clusters = serde_json::to_string(&clusters).unwrap_or_default();
        let query = format!(
            "SELECT {COLUMNS} FROM command WHERE (created, id) < (?1, ?2) AND (NOT ?3 OR ended IS NULL) \
             AND (?4 = '[]' OR cluster IN (SELECT value FROM json_each(?4))) \
             ORDER BY created DESC, id DESC LIMIT ?5"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(created)
            .bind(id)
            .bind(open)
            .bind(clusters)
            .bind(i64::from(limit));
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter().map(record).collect()
    }

    async fn read_command(&self, id: String) -> Result<Option<Record>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM command WHERE id = ?");
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(id);
        let row = query.fetch_optional(&self.pool).await?;
        row.as_ref().map(record).transpose()
    }

    async fn read_commands_named(&self, id: String) -> Result<Vec<Record>, StoreError> {
        let query = format!(
            "SELECT {COLUMNS} FROM command WHERE id = ?1 OR (length(?1) >= 6 AND (substr(id, 1, length(?1)) = ?1 \
             OR substr(id, -length(?1)) = ?1)) ORDER BY created DESC LIMIT 2"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(id);
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter().map(record).collect()
    }
}

impl CommandStore for Sqlite {
    fn open_commands(&self) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.read_open_commands().boxed()
    }

    fn command_of(&self, request: &str) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.read_command_of(request.to_owned()).boxed()
    }

    fn add_command(&self, record: Record, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.insert_command(record, decision)).boxed()
    }

    fn save_command(
        &self,
        record: Record,
        decision: Option<StoredDecision>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.update_command(record, decision)).boxed()
    }

    fn commands(
        &self,
        clusters: Vec<String>,
        open: bool,
        limit: u32,
        before: Option<CommandCursor>,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.read_commands(clusters, open, limit, before).boxed()
    }

    fn command(&self, id: &str) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.read_command(id.to_owned()).boxed()
    }

    fn commands_named(&self, id: &str) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.read_commands_named(id.to_owned()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::HubStore as _;

    fn record(id: &str, cluster: &str, created: Millis) -> Record {
        Record {
            id: id.to_owned(),
            cluster: cluster.to_owned(),
            body: vec![1, 2],
            what: "run backup".to_owned(),
            request: Some(format!("ann {id}")),
            created,
            expires: created + 10,
            ..Record::default()
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_read_again_by_every_way() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
        store.begin().await.unwrap();
        let all = [
            record("aaaaaa1111111111", "a", 1),
            record("aaaaaa2222222222", "b", 2),
            record("aaaaaa3333333333", "a", 3),
        ];
        for one in &all {
            store
                .add_command(one.clone(), StoredDecision::default())
                .await
                .unwrap();
        }
        let again = store
            .add_command(record("bbbbbb", "a", 9), StoredDecision::default())
            .await;
        assert!(again.is_ok());
        let twice = Record {
            request: all[0].request.clone(),
            ..record("cccccc", "a", 9)
        };
        assert!(
            store.add_command(twice, StoredDecision::default()).await.is_err(),
            "one request, one command"
        );
        let done = Record {
            state: State::Done,
            ended: Some(7),
            text: "t".to_owned(),
            ..all[2].clone()
        };
        store.save_command(done.clone(), None).await.unwrap();
        let ids = |records: Vec<Record>| records.into_iter().map(|r| r.id).collect::<Vec<_>>();
        assert_eq!(
            ids(store.open_commands().await.unwrap()),
            ["aaaaaa1111111111", "aaaaaa2222222222", "bbbbbb"]
        );
        assert_eq!(
            store.command_of("ann aaaaaa3333333333").await.unwrap(),
            Some(done)
        );
        let one = store.command("aaaaaa2222222222").await.unwrap();
        assert_eq!(one.as_ref(), Some(&all[1]));
        assert_eq!(store.command("aaaaaa").await.unwrap(), None, "no part of an id");
        let page = store
            .commands(vec!["a".to_owned()], false, 2, None)
            .await
            .unwrap();
        let last = page.last().unwrap();
        let next = store.commands(
            vec!["a".to_owned()],
            false,
            9,
            Some((last.created, last.id.clone())),
        );
        assert_eq!(ids(next.await.unwrap()), ["aaaaaa1111111111"]);
        assert_eq!(ids(page), ["bbbbbb", "aaaaaa3333333333"]);
        assert_eq!(store.commands(Vec::new(), true, 9, None).await.unwrap().len(), 3);
        assert_eq!(
            store.commands_named("aaaaaa").await.unwrap().len(),
            2,
            "not one only"
        );
        assert_eq!(
            ids(store.commands_named("222222").await.unwrap()),
            ["aaaaaa2222222222"]
        );
        assert_eq!(store.commands_named("2222").await.unwrap().len(), 0, "too short");
    }
}
