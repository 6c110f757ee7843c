//! What a request asks for.

use std::collections::HashMap;

use axum::http;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::faults::Request;
use super::id::{Id, Part};

/// A request, parsed.
#[derive(Clone)]
pub struct Call {
    pub request: Request,
    pub id: Id,
    pub sub: String,
    query: HashMap<String, String>,
    /// Only metadata is wanted.
    partial: bool,
    pub media: String,
}

impl Call {
    pub fn parse(client: &str, parts: &http::request::Parts) -> Call {
        let header = |name: &str| {
            let value = parts.headers.get(name).and_then(|v| v.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let path = parts.uri.path();
        let mut steps = path.split('/').filter(|step| !step.is_empty());
        // The version, behind the group if there is one.
        let versioned = match steps.next() {
            Some("api") => steps.next().is_some(),
            Some("apis") => steps.nth(1).is_some(),
            _ => false,
        };
        let mut rest: Vec<&str> = if versioned { steps.collect() } else { Vec::new() };
        let mut namespace = "";
        if rest.len() > 2 && rest[0] == "namespaces" && rest[2] != "status" {
            namespace = rest[1];
            rest.drain(..2);
        }
        let step = |n: usize| rest.get(n).copied().unwrap_or_default();
        let id = Id::new(step(0), namespace, step(1));
        let sub = step(2).to_owned();
        let query = parts.uri.query().unwrap_or_default();
        let query: HashMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), decode(value)))
            .collect();
        let media = header("content-type");
        let watches = query.get("watch").is_some_and(|w| w == "true" || w == "1");
        let verb = match parts.method.as_str() {
            "GET" if sub == "log" => "log",
            "GET" if watches => "watch",
            "GET" if id.name.is_empty() && !id.resource.is_empty() => "list",
            "GET" => "get",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" if media.contains("apply-patch") => "apply",
            "PATCH" => "patch",
            _ => "delete",
        };
        let slash = if sub.is_empty() { "" } else { "/" };
        Call {
            request: Request {
                at: Instant::now(),
                client: client.to_owned(),
                verb,
                resource: format!("{}{slash}{sub}", id.resource),
                namespace: id.namespace.clone(),
                name: id.name.clone(),
                code: None,
            },
            id,
            sub,
            query,
            partial: header("accept").contains("as=PartialObjectMetadata"),
            media,
        }
    }

    pub fn text(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    pub fn part(&self) -> Part {
        if self.sub == "status" {
            Part::Status
        } else {
            Part::Main
        }
    }

    /// A status is another manager's, as in managedFields.
    pub fn manager(&self) -> String {
        let slash = if self.sub.is_empty() { "" } else { "/" };
        let name = self.query.get("fieldManager").map_or("unknown", String::as_str);
        format!("{name}{slash}{}", self.sub)
    }

    pub fn selects(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"][name].as_str();
        let field = |path: &str| object.pointer(&format!("/{}", path.replace('.', "/")))?.as_str();
        matches(self.text("labelSelector"), label) && matches(self.text("fieldSelector"), field)
    }

    pub fn view(&self, object: &Value) -> Value {
        if self.partial {
            json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"] })
        } else {
            object.clone()
        }
    }
}

/// Whether a selector of `a=b`, `a==b`, `a!=b`, `a` and `!a`, with commas, takes what has these values.
fn matches<'a>(selector: &str, value: impl Fn(&str) -> Option<&'a str>) -> bool {
    let term = |term: &str| match (term.split_once("!="), term.split_once('=')) {
        (Some((name, unwanted)), _) => value(name) != Some(unwanted),
        (None, Some((name, wanted))) => value(name) == Some(wanted.trim_start_matches('=')),
        (None, None) => match term.strip_prefix('!') {
            Some(name) => value(name).is_none(),
            None => value(term).is_some(),
        },
    };
    selector.split(',').filter(|t| !t.is_empty()).all(term)
}

/// Decodes a value of a query string.
fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16)).unwrap_or_default();
        plain.push(match byte {
            b'+' => b' ',
            b'%' => u8::try_from(digit(bytes.next()) * 16 + digit(bytes.next())).unwrap_or_default(),
            byte => byte,
        });
    }
    String::from_utf8_lossy(&plain).into_owned()
}
