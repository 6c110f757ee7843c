//! The session of a browser. It is in a cookie that no script reads, that no other site's request carries, and that goes
//! to this host alone: `__Host-` makes browsers refuse it without Secure, with a Domain or on another path. Pure.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};

/// Name of the cookie.
pub const NAME: &str = "__Host-fleet-session";

/// Session token of a request's cookie, where the request comes from a page of this hub. In the extensions of a request.
#[derive(Clone)]
pub struct CookieSession(pub String);

/// The session token of a request.
#[must_use]
pub fn session(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter();
    let mut cookies = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    cookies.find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == NAME && !value.is_empty()).then(|| value.to_owned())
    })
}

/// A cookie for a session that lasts so many seconds. `None` for a token that cannot stand in a header.
#[must_use]
pub fn set(token: &str, seconds: i64) -> Option<HeaderValue> {
    let text = format!("{NAME}={token}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict");
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Takes the cookie out of the browser.
#[must_use]
pub fn clear() -> HeaderValue {
    HeaderValue::from_static("__Host-fleet-session=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_among_other_cookies_and_never_by_a_part_of_its_name() {
        let of = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_str(line).unwrap());
            }
            session(&headers)
        };
        assert_eq!(
            of(&["a=b; __Host-fleet-session=x=y; c=d"]).as_deref(),
            Some("x=y")
        );
        assert_eq!(of(&["a=b", "__Host-fleet-session=x"]).as_deref(), Some("x"));
        for none in [
            "fleet-session=x",
            "x__Host-fleet-session=x",
            "__Host-fleet-session=",
            "__Host-fleet-session",
        ] {
            assert_eq!(of(&[none]), None, "{none}");
        }
    }

    #[test]
    fn the_cookie_is_kept_from_scripts_and_other_sites() {
        let text = set("t", 60).unwrap().to_str().unwrap().to_owned();
        for part in [
            "__Host-fleet-session=t;",
            "Path=/;",
            "Max-Age=60;",
            "Secure;",
            "HttpOnly;",
            "SameSite=Strict",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(clear().to_str().unwrap().starts_with(NAME));
        assert_eq!(set("a\nb", 60), None);
    }
}
