//! Which requests come from a page of this hub. Pure.
//!
//! A browser adds what shows who one is (the cookie, a client certificate) to requests that other sites make it send, so a
//! request of a browser counts only if its page is one of this hub's: it carries a header and a content type that a page
//! of another origin may not send before the hub has agreed to it, which it never does (no CORS), and the browser itself
//! says that the page is of the same origin (Sec-Fetch-Site, or else Origin). The cookie is `SameSite=Strict` besides, but
//! that takes sites with the same registrable domain for one, and does not cover certificates.

use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, Request};

/// Sent by the dashboard with everything.
pub const HEADER: &str = "x-fleet-dashboard";
/// Set by browsers; pages cannot change it.
const SITE: &str = "sec-fetch-site";

/// Who sends a request for an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// No browser: the CLI, or a spoke.
    Program,
    /// A page of this hub.
    OwnPage,
    /// A page of another origin, or one that does not show that it is ours.
    OtherPage,
    /// Neither: no content type of gRPC.
    Unknown,
}

/// Who sends a request for an RPC.
#[must_use]
pub fn sender<B>(request: &Request<B>) -> Sender {
    let headers = request.headers();
    let kind = text(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    if kind.starts_with("application/grpc-web") {
        return if own_page(request) {
            Sender::OwnPage
        } else {
            Sender::OtherPage
        };
    }
    // Pages cannot send a plain application/grpc to another origin either; only trailers are missing to them.
    if headers.contains_key(SITE) || headers.contains_key(ORIGIN) {
        return Sender::OtherPage;
    }
    if kind == "application/grpc" || kind.starts_with("application/grpc+") {
        Sender::Program
    } else {
        Sender::Unknown
    }
}

/// Whether a page of this hub sends it.
#[must_use]
pub fn own_page<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    if text(headers, HEADER) != Some("1") {
        return false;
    }
    if let Some(site) = text(headers, SITE) {
        return site == "same-origin";
    }
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = authority.or_else(|| text(headers, HOST.as_str()));
    let origin = text(headers, ORIGIN.as_str()).and_then(|origin| origin.strip_prefix("https://"));
    matches!((host, origin), (Some(host), Some(origin)) if host.eq_ignore_ascii_case(origin))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");

    fn of(uri: &str, headers: &[(&str, &str)]) -> Sender {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sender(&request.body(()).unwrap())
    }

    #[test]
    fn only_a_page_of_the_same_origin_counts() {
        let h2 = "https://hub:8444/fleet.v1.FleetView/List";
        let own = (HEADER, "1");
        assert_eq!(of(h2, &[WEB, own, (SITE, "same-origin")]), Sender::OwnPage);
        assert_eq!(
            of(h2, &[WEB, own, ("origin", "https://HUB:8444")]),
            Sender::OwnPage
        );
        let h1 = [WEB, own, ("host", "hub:8444"), ("origin", "https://hub:8444")];
        assert_eq!(of("/fleet.v1.FleetView/List", &h1), Sender::OwnPage);
        for wrong in [
            vec![WEB],
            vec![WEB, own],
            vec![WEB, (SITE, "same-origin")],
            vec![WEB, own, (SITE, "same-site")],
            vec![WEB, own, (SITE, "cross-site"), ("origin", "https://hub:8444")],
            vec![WEB, own, ("origin", "https://hub:8444.evil.example")],
            vec![WEB, own, ("origin", "http://hub:8444")],
            vec![WEB, own, ("origin", "null")],
            vec![("content-type", "application/grpc"), (SITE, "cross-site")],
            vec![("content-type", "text/plain"), ("origin", "https://evil.example")],
        ] {
            assert_eq!(of(h2, &wrong), Sender::OtherPage, "{wrong:?}");
        }
    }

    #[test]
    fn programs_send_grpc_alone() {
        let h2 = "https://hub:8444/fleet.v1.FleetView/List";
        assert_eq!(of(h2, &[("content-type", "application/grpc")]), Sender::Program);
        assert_eq!(
            of(h2, &[("content-type", "application/grpc+proto")]),
            Sender::Program
        );
        assert_eq!(of(h2, &[("content-type", "text/plain")]), Sender::Unknown);
        assert_eq!(of(h2, &[]), Sender::Unknown);
    }
}
