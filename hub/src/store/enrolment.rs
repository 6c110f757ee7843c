//! Join tokens, certificates of spokes, and bans in SQLite.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite as Database, Transaction};

use super::decisions::put_decision;
use super::{Sqlite, StoreError, StoredDecision};
use crate::Millis;
use crate::bans::Ban;

/// Expired tokens are kept this long, so that who comes late is told that it has expired.
const TOKENS: Millis = 7 * 86_400_000;

/// A join token as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredToken {
    /// SHA-256 of the token.
    pub hash: Vec<u8>,
    pub cluster: String,
    pub created: Millis,
    pub expires: Millis,
    pub who: String,
    /// SHA-256 of the public key that has used it, and what was answered (fleet.v1.IssuedCertificate).
    pub used: Option<(Vec<u8>, Vec<u8>)>,
}

/// A certificate of a spoke.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredCertificate {
    pub serial: String,
    pub cluster: String,
    pub issued: Millis,
    pub expires: Millis,
    /// SHA-256 of the key that signed it.
    pub authority: Vec<u8>,
    /// Its cluster was forgotten since.
    pub forgotten: bool,
}

/// The use of a token.
#[derive(Clone, Debug)]
pub struct TokenUse {
    pub hash: Vec<u8>,
    pub public_key: Vec<u8>,
    pub answer: Vec<u8>,
    pub certificate: StoredCertificate,
    pub decision: StoredDecision,
}

/// What is kept about which clusters are in the fleet.
pub trait EnrolmentStore: Send + Sync {
    /// Keeps a new token.
    fn add_token(
        &self,
        token: StoredToken,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// A token by its SHA-256.
    fn token(&self, hash: Vec<u8>) -> BoxFuture<'_, Result<Option<StoredToken>, StoreError>>;
    /// Uses a token up, with the certificate that was issued for it. Whether it was not used before; if not, nothing is
    /// written.
    fn use_token(&self, used: TokenUse) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// Keeps a certificate that was renewed.
    fn add_certificate(&self, certificate: StoredCertificate) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Whether a cluster has ever joined, or a token for that was made, as far as it is remembered.
    fn has_enrolled(&self) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// Certificates that have not expired at a time, by cluster, newest first.
    fn certificates(&self, now: Millis) -> BoxFuture<'_, Result<Vec<StoredCertificate>, StoreError>>;
    /// Bans, lifted ones included.
    fn bans(&self) -> BoxFuture<'_, Result<Vec<Ban>, StoreError>>;
    /// Keeps a ban in place of that of before.
    fn save_ban(&self, ban: Ban, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>>;
}

impl EnrolmentStore for Sqlite {
    fn add_token(
        &self,
        token: StoredToken,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_token(token, decision)).boxed()
    }

    fn token(&self, hash: Vec<u8>) -> BoxFuture<'_, Result<Option<StoredToken>, StoreError>> {
        self.read_token(hash).boxed()
    }

    fn use_token(&self, used: TokenUse) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.noted(self.write_use(used)).boxed()
    }

    fn add_certificate(&self, certificate: StoredCertificate) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_certificate(certificate)).boxed()
    }

    fn has_enrolled(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.read_enrolled().boxed()
    }

    fn certificates(&self, now: Millis) -> BoxFuture<'_, Result<Vec<StoredCertificate>, StoreError>> {
        self.read_certificates(now).boxed()
    }

    fn bans(&self) -> BoxFuture<'_, Result<Vec<Ban>, StoreError>> {
        self.read_bans().boxed()
    }

    fn save_ban(&self, ban: Ban, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_ban(ban, decision)).boxed()
    }
}

impl Sqlite {
    async fn write_token(&self, token: StoredToken, decision: StoredDecision) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let query = sqlx::query("DELETE FROM join_token WHERE expires < ?");
        let query = query.bind(token.created.saturating_sub(TOKENS));
        query.execute(&mut *transaction).await?;
        // One that was lost, or that another person still has: only the newest one is good.
        let query =
            "UPDATE join_token SET expires = min(expires, ?) WHERE cluster = ? AND public_key IS NULL";
        let query = sqlx::query(query).bind(token.created).bind(&token.cluster);
        query.execute(&mut *transaction).await?;
        let query = "INSERT INTO join_token (hash, cluster, created, expires, who) VALUES (?, ?, ?, ?, ?)";
        let query = sqlx::query(query).bind(token.hash).bind(token.cluster);
        let query = query.bind(token.created).bind(token.expires).bind(token.who);
        query.execute(&mut *transaction).await?;
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn read_token(&self, hash: Vec<u8>) -> Result<Option<StoredToken>, StoreError> {
        let query =
            "SELECT hash, cluster, created, expires, who, public_key, answer FROM join_token WHERE hash = ?";
        let row = sqlx::query(query).bind(hash).fetch_optional(&self.pool).await?;
        let token = |row: SqliteRow| -> Result<StoredToken, StoreError> {
            let key: Option<Vec<u8>> = row.try_get(5)?;
            let answer: Option<Vec<u8>> = row.try_get(6)?;
            Ok(StoredToken {
                hash: row.try_get(0)?,
                cluster: row.try_get(1)?,
                created: row.try_get(2)?,
                expires: row.try_get(3)?,
                who: row.try_get(4)?,
                used: key.zip(answer),
            })
        };
        row.map(token).transpose()
    }

    async fn write_use(&self, used: TokenUse) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let query = "UPDATE join_token SET public_key = ?, answer = ? WHERE hash = ? AND public_key IS NULL";
        let query = sqlx::query(query).bind(used.public_key).bind(used.answer);
        let done = query.bind(used.hash).execute(&mut *transaction).await?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        put_certificate(&mut transaction, used.certificate).await?;
        put_decision(&mut transaction, used.decision).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn write_certificate(&self, certificate: StoredCertificate) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        put_certificate(&mut transaction, certificate).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn read_enrolled(&self) -> Result<bool, StoreError> {
        let query = "SELECT EXISTS (SELECT 1 FROM certificate) OR EXISTS (SELECT 1 FROM join_token)";
        let row = sqlx::query(query).fetch_one(&self.pool).await?;
        Ok(row.try_get::<i64, _>(0)? != 0)
    }

    async fn read_certificates(&self, now: Millis) -> Result<Vec<StoredCertificate>, StoreError> {
        let query = "SELECT serial, cluster, issued, expires, authority, forgotten FROM certificate \
             WHERE expires > ? ORDER BY cluster, issued DESC";
        let rows = sqlx::query(query).bind(now).fetch_all(&self.pool).await?;
        let certificate = |row: &SqliteRow| -> Result<StoredCertificate, StoreError> {
            Ok(StoredCertificate {
                serial: row.try_get(0)?,
                cluster: row.try_get(1)?,
                issued: row.try_get(2)?,
                expires: row.try_get(3)?,
                authority: row.try_get(4)?,
                forgotten: row.try_get(5)?,
            })
        };
        rows.iter().map(certificate).collect()
    }

    async fn read_bans(&self) -> Result<Vec<Ban>, StoreError> {
        let query = "SELECT cluster, since, who, reason, lifted, refused_before FROM ban";
        let rows = sqlx::query(query).fetch_all(&self.pool).await?;
        let ban = |row: &SqliteRow| -> Result<Ban, StoreError> {
            Ok(Ban {
                cluster: row.try_get(0)?,
                since: row.try_get(1)?,
                who: row.try_get(2)?,
                reason: row.try_get(3)?,
                lifted: row.try_get(4)?,
                refused_before: row.try_get(5)?,
            })
        };
        rows.iter().map(ban).collect()
    }

    async fn write_ban(&self, ban: Ban, decision: StoredDecision) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        if ban.lifted.is_none() {
            let query = "DELETE FROM join_token WHERE cluster = ? AND public_key IS NULL";
            let query = sqlx::query(query).bind(&ban.cluster);
            query.execute(&mut *transaction).await?;
        }
        let query = "INSERT INTO ban (cluster, since, who, reason, lifted, refused_before) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT (cluster) DO UPDATE SET since = excluded.since, who = excluded.who, \
             reason = excluded.reason, lifted = excluded.lifted, \
             refused_before = max(coalesce(excluded.refused_before, refused_before), \
             coalesce(refused_before, excluded.refused_before))";
        let query = sqlx::query(query).bind(ban.cluster).bind(ban.since).bind(ban.who);
        let query = query.bind(ban.reason).bind(ban.lifted).bind(ban.refused_before);
        query.execute(&mut *transaction).await?;
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }
}

async fn put_certificate(
    transaction: &mut Transaction<'static, Database>,
    certificate: StoredCertificate,
) -> Result<(), StoreError> {
    let query = sqlx::query("DELETE FROM certificate WHERE expires < ?").bind(certificate.issued);
    query.execute(&mut **transaction).await?;
    let query =
        "INSERT INTO certificate (serial, cluster, issued, expires, authority) VALUES (?, ?, ?, ?, ?)";
    let query = sqlx::query(query)
        .bind(certificate.serial)
        .bind(certificate.cluster);
    let query = query.bind(certificate.issued).bind(certificate.expires);
    let query = query.bind(certificate.authority);
    query.execute(&mut **transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{DecisionStore as _, HubStore as _};
    use super::*;

    fn token() -> StoredToken {
        StoredToken {
            hash: vec![1; 32],
            cluster: "a".to_owned(),
            created: 10,
            expires: 20,
            who: "ann".to_owned(),
            used: None,
        }
    }

    fn used(key: u8) -> TokenUse {
        TokenUse {
            hash: vec![1; 32],
            public_key: vec![key; 32],
            answer: vec![key],
            certificate: StoredCertificate {
                serial: format!("{key:x}"),
                cluster: "a".to_owned(),
                issued: 15,
                expires: 100,
                authority: vec![9],
                forgotten: false,
            },
            decision: StoredDecision::default(),
        }
    }

    #[tokio::test]
    async fn a_token_is_used_once_with_all_that_it_brings() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
        store.begin().await.unwrap();
        assert!(!store.has_enrolled().await.unwrap());
        store.add_token(token(), StoredDecision::default()).await.unwrap();
        assert!(store.has_enrolled().await.unwrap());
        assert_eq!(store.token(vec![1; 32]).await.unwrap(), Some(token()));
        assert_eq!(store.token(vec![2; 32]).await.unwrap(), None);
        assert!(store.use_token(used(7)).await.unwrap());
        assert!(!store.use_token(used(8)).await.unwrap());
        let kept = store.token(vec![1; 32]).await.unwrap().unwrap();
        assert_eq!(kept.used, Some((vec![7; 32], vec![7])));
        let certificates = store.certificates(50).await.unwrap();
        assert_eq!(certificates, [used(7).certificate], "and none of the second one");
        assert!(store.certificates(100).await.unwrap().is_empty());
        assert_eq!(store.newest_decision().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_ban_takes_the_place_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
        store.begin().await.unwrap();
        let ban = |lifted, refused_before| Ban {
            cluster: "a".to_owned(),
            since: 5,
            who: "ann".to_owned(),
            reason: "stolen".to_owned(),
            lifted,
            refused_before,
        };
        for (lifted, before, kept) in [
            (None, None, None),
            (Some(9), Some(9), Some(9)),
            (None, None, Some(9)),
            (Some(20), None, Some(9)),
            (Some(30), Some(30), Some(30)),
        ] {
            store
                .save_ban(ban(lifted, before), StoredDecision::default())
                .await
                .unwrap();
            assert_eq!(store.bans().await.unwrap(), [ban(lifted, kept)]);
        }
    }

    #[tokio::test]
    async fn a_new_token_and_a_ban_end_those_that_were_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
        store.begin().await.unwrap();
        let newer = StoredToken {
            hash: vec![2; 32],
            created: 15,
            expires: 30,
            ..token()
        };
        let other = StoredToken {
            hash: vec![3; 32],
            cluster: "b".to_owned(),
            ..token()
        };
        for one in [token(), other.clone(), newer.clone()] {
            store.add_token(one, StoredDecision::default()).await.unwrap();
        }
        let first = store.token(vec![1; 32]).await.unwrap().unwrap();
        assert_eq!(first.expires, 15, "when the newer one was made");
        assert_eq!(store.token(vec![2; 32]).await.unwrap(), Some(newer));
        let ban = Ban {
            cluster: "a".to_owned(),
            ..Ban::default()
        };
        store.save_ban(ban, StoredDecision::default()).await.unwrap();
        assert_eq!(store.token(vec![2; 32]).await.unwrap(), None);
        assert_eq!(store.token(vec![3; 32]).await.unwrap(), Some(other));
    }
}
