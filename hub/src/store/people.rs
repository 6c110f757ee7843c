//! Rights of people, their login tokens and their sessions, in SQLite.

use futures::future::BoxFuture;
use proto::certificate::KeyHash;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::decisions::put_decision;
use super::locks::{number, signed};
use super::{Sqlite, StoreError, StoredDecision};
use crate::Millis;
use crate::access::people::{Invite, Maker, Revocation, RoleBinding, Session, Subject};

/// Bindings, and sessions.
pub type KeptPeople = (Vec<RoleBinding>, Vec<Session>);

/// What is kept of people.
pub trait PeopleStore: Send + Sync {
    /// All bindings, and all sessions that have not ended.
    fn people(&self, now: Millis) -> BoxFuture<'_, Result<KeptPeople, StoreError>>;
    /// Keeps a new binding; the answer is its id.
    fn bind_role(
        &self,
        binding: RoleBinding,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// Removes a binding; `false` when there is none.
    fn unbind_role(&self, id: u64, decision: StoredDecision) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// Keeps a login token, and forgets those that have expired.
    /// `false`, and nothing is kept, when who makes it has `most` such tokens in force: for itself, or for others.
    fn invite(
        &self,
        invite: Invite,
        most: u32,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// Whom a login token is for, if it is good.
    fn invited(&self, hash: [u8; 32], now: Millis) -> BoxFuture<'_, Result<Option<Invite>, StoreError>>;
    /// Opens a session; a login token is used up by it, and `false` is the answer when it was used already.
    fn open_session(
        &self,
        session: Session,
        invite: Option<[u8; 32]>,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// Ends one session.
    fn close_session(
        &self,
        hash: [u8; 32],
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Ends all sessions of a person, and forgets its login tokens.
    fn revoke(&self, name: &str, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Ends the sessions and login tokens that people have made for themselves by a certificate.
    fn end_made(&self, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Certificates of people that are refused.
    fn revoked(&self) -> BoxFuture<'_, Result<Vec<Revocation>, StoreError>>;
    /// Refuses certificates, in place of an earlier revocation of the same.
    fn revoke_certificate(
        &self,
        revocation: Revocation,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Keeps which authorities a person's CLI trusts the hub by.
    fn keep_trust(&self, hash: [u8; 32], keys: Vec<KeyHash>) -> BoxFuture<'_, Result<(), StoreError>>;
}

fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_default()
}

fn json(list: &[String]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

fn keys(bytes: &[u8]) -> Vec<KeyHash> {
    bytes.as_chunks().0.to_vec()
}

fn made_by(maker: Option<&Maker>) -> String {
    maker
        .and_then(|maker| serde_json::to_string(maker).ok())
        .unwrap_or_default()
}

fn maker(row: &SqliteRow, column: usize) -> Result<Option<Maker>, StoreError> {
    Ok(serde_json::from_str(row.try_get(column)?).ok())
}

fn hash(row: &SqliteRow, column: usize) -> Result<[u8; 32], StoreError> {
    let bytes: Vec<u8> = row.try_get(column)?;
    // One of another length matches no token.
    Ok(bytes.try_into().unwrap_or_default())
}

fn binding(row: &SqliteRow) -> Result<Option<RoleBinding>, StoreError> {
    let name: String = row.try_get(2)?;
    let subject = match row.try_get::<&str, _>(1)? {
        "user" => Subject::User(name),
        _ => Subject::Group(name),
    };
    let (rights, scope): (String, &str) = (row.try_get(3)?, row.try_get(4)?);
    // What this version cannot read gives no right.
    let (Ok(verbs), Ok(scope)) = (rights.parse(), serde_json::from_str(scope)) else {
        tracing::warn!(rights, "a binding of rights cannot be read, and gives none");
        return Ok(None);
    };
    Ok(Some(RoleBinding {
        id: number(row, 0)?,
        subject,
        rights,
        verbs,
        scope,
        created: row.try_get(5)?,
        created_by: row.try_get(6)?,
    }))
}

impl Sqlite {
    async fn read_people(&self, now: Millis) -> Result<KeptPeople, StoreError> {
        let query = "SELECT id, kind, name, rights, scope, created, created_by FROM role_binding ORDER BY id";
        let rows = sqlx::query(query).fetch_all(&self.pool).await?;
        let mut bindings = Vec::new();
        for row in &rows {
            bindings.extend(binding(row)?);
        }
        let query = "SELECT hash, name, groups, how, created, expires, trusts, maker FROM person_session WHERE expires > ?";
        let rows = sqlx::query(query).bind(now).fetch_all(&self.pool).await?;
        let session = |row: &SqliteRow| -> Result<Session, StoreError> {
            Ok(Session {
                hash: hash(row, 0)?,
                name: row.try_get(1)?,
                groups: list(row.try_get(2)?),
                how: row.try_get(3)?,
                created: row.try_get(4)?,
                expires: row.try_get(5)?,
                trusts: keys(row.try_get(6)?),
                maker: maker(row, 7)?,
            })
        };
        let sessions: Result<Vec<Session>, StoreError> = rows.iter().map(session).collect();
        Ok((bindings, sessions?))
    }

    async fn write_role(&self, binding: RoleBinding, decision: StoredDecision) -> Result<u64, StoreError> {
        let mut transaction = self.write().await?;
        let (kind, name) = binding.subject.parts();
        let scope = serde_json::to_string(&binding.scope).unwrap_or_default();
        let query = "INSERT INTO role_binding (kind, name, rights, scope, created, created_by) VALUES (?, ?, ?, ?, ?, ?)";
        let query = sqlx::query(query).bind(kind).bind(name).bind(&binding.rights);
        let query = query.bind(scope).bind(binding.created).bind(&binding.created_by);
        let id = query.execute(&mut *transaction).await?.last_insert_rowid();
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(u64::try_from(id).unwrap_or_default())
    }

    async fn remove_role(&self, id: u64, decision: StoredDecision) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let query = sqlx::query("DELETE FROM role_binding WHERE id = ?").bind(signed(id));
        if query.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(false);
        }
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn write_invite(
        &self,
        invite: Invite,
        most: u32,
        decision: StoredDecision,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let query = sqlx::query("DELETE FROM invite WHERE expires <= ?").bind(decision.at);
        query.execute(&mut *transaction).await?;
        let query = "SELECT count(*) FROM invite WHERE created_by = ? AND (name = created_by) = ?";
        let query = sqlx::query_scalar(query).bind(&decision.who);
        let in_force: i64 = query
            .bind(invite.name == decision.who)
            .fetch_one(&mut *transaction)
            .await?;
        if in_force >= i64::from(most) {
            return Ok(false);
        }
        let query = "INSERT INTO invite (hash, name, groups, expires, created_by, maker, until) VALUES (?, ?, ?, ?, ?, ?, ?)";
        let query = sqlx::query(query).bind(invite.hash.to_vec()).bind(invite.name);
        let query = query.bind(json(&invite.groups)).bind(invite.expires);
        let query = query.bind(&decision.who);
        let query = query.bind(made_by(invite.maker.as_ref())).bind(invite.until);
        query.execute(&mut *transaction).await?;
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn read_invite(&self, of: [u8; 32], now: Millis) -> Result<Option<Invite>, StoreError> {
        let query = "SELECT name, groups, expires, maker, until FROM invite WHERE hash = ? AND expires > ?";
        let query = sqlx::query(query).bind(of.to_vec()).bind(now);
        let row = query.fetch_optional(&self.pool).await?;
        row.map(|row| {
            Ok(Invite {
                hash: of,
                name: row.try_get(0)?,
                groups: list(row.try_get(1)?),
                expires: row.try_get(2)?,
                maker: maker(&row, 3)?,
                until: row.try_get(4)?,
            })
        })
        .transpose()
    }

    async fn write_session(
        &self,
        session: Session,
        invite: Option<[u8; 32]>,
        decision: StoredDecision,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        if let Some(invite) = invite {
            let query = sqlx::query("DELETE FROM invite WHERE hash = ?").bind(invite.to_vec());
            if query.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(false);
            }
        }
        let query = sqlx::query("DELETE FROM person_session WHERE expires <= ?").bind(decision.at);
        query.execute(&mut *transaction).await?;
        let query = "INSERT INTO person_session (hash, name, groups, how, created, expires, trusts, maker) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        let query = sqlx::query(query).bind(session.hash.to_vec()).bind(session.name);
        let query = query.bind(json(&session.groups)).bind(session.how);
        let query = query.bind(session.created).bind(session.expires);
        let query = query
            .bind(session.trusts.concat())
            .bind(made_by(session.maker.as_ref()));
        query.execute(&mut *transaction).await?;
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn remove_session(&self, of: [u8; 32], decision: StoredDecision) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        // Login tokens that its person has made for itself and not used yet go with it.
        let query = "DELETE FROM invite WHERE name = created_by \
             AND name = (SELECT name FROM person_session WHERE hash = ?)";
        let query = sqlx::query(query).bind(of.to_vec());
        query.execute(&mut *transaction).await?;
        let query = sqlx::query("DELETE FROM person_session WHERE hash = ?").bind(of.to_vec());
        query.execute(&mut *transaction).await?;
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn remove_made(&self, decision: StoredDecision) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for query in [
            "DELETE FROM person_session WHERE maker != ''",
            "DELETE FROM invite WHERE maker != ''",
        ] {
            sqlx::query(query).execute(&mut *transaction).await?;
        }
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn remove_person(&self, name: String, decision: StoredDecision) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for query in [
            "DELETE FROM person_session WHERE name = ?",
            "DELETE FROM invite WHERE name = ?",
        ] {
            sqlx::query(query).bind(&name).execute(&mut *transaction).await?;
        }
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }
}

impl Sqlite {
    async fn read_revoked(&self) -> Result<Vec<Revocation>, StoreError> {
        let query = "SELECT name, serial, at, who FROM revoked_certificate ORDER BY at";
        let rows = sqlx::query(query).fetch_all(&self.pool).await?;
        let revocation = |row: &SqliteRow| -> Result<Revocation, StoreError> {
            Ok(Revocation {
                name: row.try_get(0)?,
                serial: row.try_get(1)?,
                at: row.try_get(2)?,
                by: row.try_get(3)?,
            })
        };
        rows.iter().map(revocation).collect()
    }

    async fn write_revocation(
        &self,
        revocation: Revocation,
        decision: StoredDecision,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let query = "INSERT OR REPLACE INTO revoked_certificate (name, serial, at, who) VALUES (?, ?, ?, ?)";
        let query = sqlx::query(query).bind(revocation.name).bind(revocation.serial);
        let query = query.bind(revocation.at).bind(revocation.by);
        query.execute(&mut *transaction).await?;
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn write_trust(&self, of: [u8; 32], keys: Vec<KeyHash>) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let query = sqlx::query("UPDATE person_session SET trusts = ? WHERE hash = ?");
        let query = query.bind(keys.concat()).bind(of.to_vec());
        query.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }
}

impl PeopleStore for Sqlite {
    fn people(&self, now: Millis) -> BoxFuture<'_, Result<KeptPeople, StoreError>> {
        Box::pin(self.read_people(now))
    }

    fn bind_role(
        &self,
        binding: RoleBinding,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.noted(self.write_role(binding, decision)))
    }

    fn unbind_role(&self, id: u64, decision: StoredDecision) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.noted(self.remove_role(id, decision)))
    }

    fn invite(
        &self,
        invite: Invite,
        most: u32,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.noted(self.write_invite(invite, most, decision)))
    }

    fn invited(&self, hash: [u8; 32], now: Millis) -> BoxFuture<'_, Result<Option<Invite>, StoreError>> {
        Box::pin(self.read_invite(hash, now))
    }

    fn open_session(
        &self,
        session: Session,
        invite: Option<[u8; 32]>,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.noted(self.write_session(session, invite, decision)))
    }

    fn close_session(
        &self,
        hash: [u8; 32],
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.noted(self.remove_session(hash, decision)))
    }

    fn revoke(&self, name: &str, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.noted(self.remove_person(name.to_owned(), decision)))
    }

    fn end_made(&self, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.noted(self.remove_made(decision)))
    }

    fn revoked(&self) -> BoxFuture<'_, Result<Vec<Revocation>, StoreError>> {
        Box::pin(self.read_revoked())
    }

    fn revoke_certificate(
        &self,
        revocation: Revocation,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.noted(self.write_revocation(revocation, decision)))
    }

    fn keep_trust(&self, hash: [u8; 32], keys: Vec<KeyHash>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.noted(self.write_trust(hash, keys)))
    }
}
