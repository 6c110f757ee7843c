//! Who an ID token names. Pure: keys and time are arguments.

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::Millis;
use crate::access::people::is_name;

/// Clocks of hub and issuer may differ by this much, in milliseconds.
const CLOCKS: Millis = 60_000;
/// Signatures that only the issuer's private key can make. Symmetric ones and "none" are not among them.
const SIGNATURES: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// Most groups of a person.
const GROUPS: usize = 1000;

/// What is expected of a token, and what is taken out of it.
#[derive(Clone, Debug)]
pub struct Expected {
    pub issuer: String,
    pub client: String,
    /// Claim that names the person, such as "email".
    pub user: String,
    /// Claim with the groups, a list of texts.
    pub groups: String,
    /// Stands before every name, so that no token can name a person of the hub's own.
    pub prefix: String,
}

/// A person that the issuer vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub groups: Vec<String>,
}

/// Why a token names nobody.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Rejected {
    #[error("the ID token cannot be read")]
    Unreadable,
    #[error("the ID token is signed with {0:?}, which anybody could do that knows the client's secret")]
    Signature(Algorithm),
    /// The issuer may have a new key.
    #[error("the ID token is signed with a key that the issuer does not publish")]
    UnknownKey,
    #[error("the ID token is not valid: {0}")]
    Invalid(String),
    #[error("the ID token has no usable claim {0:?}: set --oidc-user-claim to one that names the person")]
    Name(String),
    #[error("the issuer has not verified the address {0:?}")]
    Unverified(String),
}

impl Expected {
    /// Who a token names. `nonce`: of the login that it was asked for, where that sent one.
    ///
    /// # Errors
    /// When its signature, issuer, audience, time or nonce are not as expected, or it names nobody.
    pub fn verify(
        &self,
        token: &str,
        keys: &JwkSet,
        nonce: Option<&str>,
        now: Millis,
    ) -> Result<Named, Rejected> {
        let header = decode_header(token).map_err(|_| Rejected::Unreadable)?;
        if !SIGNATURES.contains(&header.alg) {
            return Err(Rejected::Signature(header.alg));
        }
        let key = key(keys, header.kid.as_deref()).ok_or(Rejected::UnknownKey)?;
        let invalid = |error: jsonwebtoken::errors::Error| Rejected::Invalid(error.to_string());
        let key = DecodingKey::from_jwk(key).map_err(invalid)?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.client]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // By the time that is given, below.
        validation.validate_exp = false;
        let claims = decode::<Map<String, Value>>(token, &key, &validation);
        let claims = claims.map_err(invalid)?.claims;
        in_time(&claims, now)?;
        if nonce.is_some_and(|nonce| claims.get("nonce").and_then(Value::as_str) != Some(nonce)) {
            return Err(Rejected::Invalid("it was made for another login".to_owned()));
        }
        self.party(&claims)?;
        self.named(&claims)
    }

    /// A token for several audiences names the one that it was made for.
    fn party(&self, claims: &Map<String, Value>) -> Result<(), Rejected> {
        let several = claims
            .get("aud")
            .and_then(Value::as_array)
            .is_some_and(|audiences| audiences.len() > 1);
        match claims.get("azp") {
            None if !several => Ok(()),
            Some(party) if *party == self.client => Ok(()),
            _ => Err(Rejected::Invalid("it was made for another client".to_owned())),
        }
    }

    fn named(&self, claims: &Map<String, Value>) -> Result<Named, Rejected> {
        let name = claims.get(&self.user).and_then(Value::as_str);
        let name = name.filter(|name| is_name(name));
        let name = name.ok_or_else(|| Rejected::Name(self.user.clone()))?;
        let verified = claims.get("email_verified");
        if self.user == "email" && verified.is_some_and(|verified| *verified != true) {
            return Err(Rejected::Unverified(name.to_owned()));
        }
        let listed = claims.get(&self.groups).and_then(Value::as_array);
        let groups = listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|group| is_name(group))
            .take(GROUPS);
        Ok(Named {
            name: format!("{}{name}", self.prefix),
            groups: groups.map(|group| format!("{}{group}", self.prefix)).collect(),
        })
    }
}

/// The key of a token; without an id only where the issuer has just one.
fn key<'a>(keys: &'a JwkSet, id: Option<&str>) -> Option<&'a Jwk> {
    match (id, keys.keys.as_slice()) {
        (Some(id), _) => keys.find(id),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// A time of another type than a number makes the token invalid, and does not count as absent.
fn in_time(claims: &Map<String, Value>, now: Millis) -> Result<(), Rejected> {
    let invalid = |text: &str| Err(Rejected::Invalid(text.to_owned()));
    let at = |claim: &str| {
        let value = claims.get(claim);
        let seconds = value.map(|value| {
            value
                .as_f64()
                .ok_or_else(|| Rejected::Invalid(format!("{claim} is no time")))
        });
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a time that far away is as good as the largest"
        )]
        seconds.transpose().map(|at| at.map(|at| (at * 1000.0) as Millis))
    };
    match at("exp")? {
        None => return invalid("it never ends"),
        Some(ends) if ends.saturating_add(CLOCKS) <= now => return invalid("it has ended"),
        Some(_) => {}
    }
    let early = now.saturating_add(CLOCKS);
    if at("nbf")?.is_some_and(|begins| begins > early) || at("iat")?.is_some_and(|made| made > early) {
        return invalid("it is of the future: compare the clocks of hub and issuer");
    }
    Ok(())
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
