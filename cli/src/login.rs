//! `fleet login`, `logout`, `whoami` and `contexts`.

use std::path::Path;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::{LoginRequest, Scope, WhoAmIResponse};
use serde_json::{Value, json};

use crate::arguments::{ContextsCommand, Format, HubArguments, Login};
use crate::client::{Client, Connection, Proof, read};
use crate::contexts::{self, Context};
use crate::document::API_VERSION;
use crate::failure::Failure;
use crate::output::{line, note, print};
use crate::render::align;
use crate::run::yaml;
use crate::text::{rfc3339, time};

/// Exchanges a login token for a session, and keeps that.
pub async fn login(arguments: &HubArguments, login: &Login) -> Result<u8, Failure> {
    let hub = arguments.hub.clone();
    let hub = hub.ok_or(Failure::NotConfigured("FLEET_HUB", "hub"))?;
    let ca = arguments.ca.as_deref();
    let ca = read(ca.ok_or(Failure::NotConfigured("FLEET_CA", "ca"))?)?;
    let token = match login.token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|error| Failure::File {
            path: "standard input".to_owned(),
            error,
        })?,
        token => token.to_owned(),
    };
    // Before the token is used up.
    let path = contexts::path()?;
    let mut all = contexts::load(&path)?;
    let connection = Connection {
        hub: hub.clone(),
        server_name: arguments.server_name(),
        ca: ca.clone(),
        proof: Proof::None,
    };
    let mut client = Client::open(connection, arguments.timeout).await?;
    let request = LoginRequest {
        token: token.trim().to_owned(),
    };
    let answer = client.login(request).await?;
    let name = login.name.clone().unwrap_or_else(|| host(&hub));
    let context = Context {
        name: name.clone(),
        hub,
        server_name: arguments.server_name(),
        ca: String::from_utf8_lossy(&ca).into_owned(),
        person: answer.name.clone(),
        session: answer.session,
        expires: rfc3339(answer.expires.as_ref()).unwrap_or_default(),
    };
    let until = context.expires.clone();
    all.put(context);
    contexts::save(&path, &all)?;
    note(&format!(
        "logged in as {} until {until}, context {name}; next: fleet whoami",
        cleaned(&answer.name)
    ));
    Ok(0)
}

/// Host of an address, for a context without a name.
fn host(hub: &str) -> String {
    let rest = hub.strip_prefix("https://").unwrap_or(hub);
    rest.split(['/', ':']).next().unwrap_or_default().to_owned()
}

/// Ends the session, and forgets it. A session that the hub does not know any more is forgotten as well.
pub async fn logout(arguments: &HubArguments) -> Result<u8, Failure> {
    let path = contexts::path()?;
    let mut all = contexts::load(&path)?;
    let found = all.find(arguments.context.as_deref()).cloned();
    let Some(context) = found else {
        return Err(Failure::Usage(
            "nobody is logged in; fleet contexts list".to_owned(),
        ));
    };
    let mut client = Client::open(Connection::of(&context), arguments.timeout).await?;
    match client.logout().await {
        Ok(()) | Err(Failure::Forbidden(_)) => {}
        Err(failure) => return Err(failure),
    }
    all.remove(&context.name);
    contexts::save(&path, &all)?;
    note(&format!("{} is logged out of {}", context.person, context.name));
    Ok(0)
}

/// Logins of the file.
pub fn list(command: &ContextsCommand) -> Result<u8, Failure> {
    let path = contexts::path()?;
    let all = contexts::load(&path)?;
    match command {
        ContextsCommand::Use { name } => choose(&path, all, name),
        ContextsCommand::List { output } => {
            match output {
                Format::Json => line(&format!("{:#}", document(&all))),
                Format::Yaml => print(&yaml(&document(&all))),
                Format::Name => all.contexts.iter().for_each(|context| line(&context.name)),
                Format::Table | Format::Wide if all.contexts.is_empty() => {
                    note("no logins; next: fleet login --hub URL --ca FILE --token TOKEN");
                }
                Format::Table | Format::Wide => print(&table(&all)),
            }
            Ok(0)
        }
    }
}

fn choose(path: &Path, mut all: contexts::Contexts, name: &str) -> Result<u8, Failure> {
    if all.find(Some(name)).is_none() {
        let text = format!("there is no context {name:?}; fleet contexts list");
        return Err(Failure::Usage(text));
    }
    name.clone_into(&mut all.current);
    contexts::save(path, &all)?;
    note(&format!("context {name} is used from now on"));
    Ok(0)
}

fn table(all: &contexts::Contexts) -> String {
    let mut lines = vec![["", "NAME", "HUB", "PERSON", "UNTIL"].map(str::to_owned).to_vec()];
    lines.extend(all.contexts.iter().map(|context| {
        let mark = if context.name == all.current { "*" } else { "" };
        vec![
            mark.to_owned(),
            context.name.clone(),
            context.hub.clone(),
            context.person.clone(),
            context.expires.clone(),
        ]
    }));
    align(&lines)
}

/// Without sessions: they are secrets.
fn document(all: &contexts::Contexts) -> Value {
    let item = |context: &Context| {
        json!({
            "name": context.name, "hub": context.hub, "person": context.person, "expires": context.expires,
            "current": context.name == all.current,
        })
    };
    let items: Vec<Value> = all.contexts.iter().map(item).collect();
    json!({ "apiVersion": API_VERSION, "kind": "ContextList", "items": items })
}

/// Who the hub takes one for, and what that may do.
pub async fn whoami(arguments: &HubArguments, output: Format) -> Result<u8, Failure> {
    let mut client = Client::connect(arguments).await?;
    let answer = client.who_am_i().await?;
    match output {
        Format::Json => line(&format!("{:#}", person(&answer))),
        Format::Yaml => print(&yaml(&person(&answer))),
        Format::Name => line(&cleaned(&answer.name)),
        Format::Table | Format::Wide => print(&described(&answer, Timestamp::now())),
    }
    Ok(0)
}

fn person(answer: &WhoAmIResponse) -> Value {
    let grants: Vec<Value> = answer
        .grants
        .iter()
        .map(|grant| json!({ "verbs": grant.verbs, "scope": scope(grant.scope.as_ref()) }))
        .collect();
    json!({
        "apiVersion": API_VERSION, "kind": "Person", "name": answer.name, "groups": answer.groups,
        "method": answer.method, "expires": rfc3339(answer.expires.as_ref()), "grants": grants,
    })
}

/// A scope as a document; an empty list takes everything.
pub fn scope(scope: Option<&Scope>) -> Value {
    let scope = scope.cloned().unwrap_or_default();
    json!({ "clusters": scope.clusters, "namespaces": scope.namespaces, "repositories": scope.repositories })
}

/// A scope in words.
pub fn scope_text(scope: Option<&Scope>) -> String {
    let Some(scope) = scope else {
        return "everything".to_owned();
    };
    let lists = [
        ("cluster", &scope.clusters),
        ("namespace", &scope.namespaces),
        ("repository", &scope.repositories),
    ];
    let narrowed = lists.iter().filter(|(_, list)| !list.is_empty());
    let words: Vec<String> = narrowed
        .map(|(what, list)| format!("{what} {}", list.join(",")))
        .collect();
    if words.is_empty() {
        "everything".to_owned()
    } else {
        words.join("; ")
    }
}

fn described(answer: &WhoAmIResponse, now: Timestamp) -> String {
    let until = time(answer.expires.as_ref()).map_or_else(
        || "-".to_owned(),
        |at| format!("{at} (in {}m)", at.duration_since(now).as_mins().max(0)),
    );
    let mut text = format!("{} by {}, until {until}\n", answer.name, answer.method);
    if !answer.groups.is_empty() {
        text.push_str(&format!("groups  {}\n", answer.groups.join(", ")));
    }
    if answer.grants.is_empty() {
        text.push_str("no rights: an admin gives them with fleet people bind\n");
    }
    for grant in &answer.grants {
        let place = scope_text(grant.scope.as_ref());
        text.push_str(&format!("may     {} in {place}\n", grant.verbs.join(", ")));
    }
    text.lines().map(|line| cleaned(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use proto::v1::Grant;

    use super::*;

    #[test]
    fn who_one_is_and_what_that_may_do() {
        let scope = Scope {
            clusters: vec!["prod-*".to_owned()],
            namespaces: vec!["shop".to_owned()],
            ..Scope::default()
        };
        let grant = |scope| Grant {
            verbs: vec!["see".to_owned(), "approve".to_owned()],
            scope,
        };
        let answer = WhoAmIResponse {
            name: "ann\u{1b}[2J".to_owned(),
            method: "token".to_owned(),
            grants: vec![grant(Some(scope)), grant(None)],
            ..WhoAmIResponse::default()
        };
        assert_eq!(
            described(&answer, Timestamp::UNIX_EPOCH),
            "ann?[2J by token, until -\n\
             may     see, approve in cluster prod-*; namespace shop\n\
             may     see, approve in everything\n"
        );
    }

    #[test]
    fn a_context_is_called_after_its_host() {
        assert_eq!(host("https://hub.example.org:8444"), "hub.example.org");
        assert_eq!(host("https://hub/x"), "hub");
    }
}
