//! `fleet login`, `logout`, `whoami` and `contexts`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::{BeginLoginResponse, LoginRequest, LoginResponse, Scope, WhoAmIResponse};
use serde_json::{Value, json};

use crate::arguments::{ContextsCommand, Format, HubArguments, Login};
use crate::authorities;
use crate::client::Client;
use crate::connection::{Connection, Proof, read};
use crate::contexts::{self, Context};
use crate::document::API_VERSION;
use crate::failure::Failure;
use crate::loopback::Loopback;
use crate::maintenance;
use crate::output::{line, note, print};
use crate::pin::{self, Pin};
use crate::render::align;
use crate::run::yaml;
use crate::text::{rfc3339, time};

/// Opens a session, and keeps it.
pub async fn login(arguments: &HubArguments, login: &Login) -> Result<u8, Failure> {
    let hub = arguments.hub.clone();
    let hub = hub.ok_or(Failure::NotConfigured("FLEET_HUB", "hub"))?;
    let ca = authority(arguments, &hub, login.pin).await?;
    // Before the token is used up.
    let path = contexts::path()?;
    let mut all = contexts::load(&path)?;
    let connection = Connection {
        hub: hub.clone(),
        server_name: arguments.server_name(),
        ca: ca.clone().into_bytes(),
        proof: Proof::None,
        context: None,
    };
    let mut client = Client::open(connection, arguments.timeout).await?;
    let trusts = authorities::wire(&authorities::keys(ca.as_bytes()));
    let answer = match &login.token {
        Some(token) => client.login(by_token(token, trusts)?).await?,
        None => at_issuer(&mut client, login, trusts).await?,
    };
    let name = login.name.clone().unwrap_or_else(|| host(&hub));
    let context = Context {
        name: name.clone(),
        hub,
        server_name: arguments.server_name(),
        ca,
        person: answer.name.clone(),
        session: answer.session,
        expires: rfc3339(answer.expires.as_ref()).unwrap_or_default(),
    };
    let until = context.expires.clone();
    let connection = Connection::of(&context);
    all.put(context);
    contexts::save(&path, &all)?;
    // Its answer has the authorities that the hub announces: they are kept from now on.
    let mut client = Client::open(connection, arguments.timeout).await?;
    client.who_am_i().await?;
    note(&format!(
        "logged in as {} until {until}, context {name}; next: fleet whoami",
        cleaned(&answer.name)
    ));
    Ok(0)
}

/// The authority that the hub is trusted by, PEM: of a file, or the one that a pin names.
async fn authority(arguments: &HubArguments, hub: &str, pin: Option<Pin>) -> Result<String, Failure> {
    if let Some(pin) = pin {
        return pin::authority(hub, &arguments.server_name(), pin, arguments.timeout).await;
    }
    let missing =
        || Failure::Usage("write --pin sha256:… or --ca FILE: what the hub is trusted by".to_owned());
    let file = arguments.ca.as_deref().ok_or_else(missing)?;
    let certificates = authorities::certificates(&read(file)?);
    if certificates.is_empty() {
        let text = format!("there is no certificate in {}", file.display());
        return Err(Failure::Usage(text));
    }
    // A file may hold a key besides.
    Ok(authorities::pem(certificates.iter().map(AsRef::as_ref)))
}

fn by_token(token: &str, trusts: Vec<Vec<u8>>) -> Result<LoginRequest, Failure> {
    let read = || {
        std::io::read_to_string(std::io::stdin()).map_err(|error| Failure::File {
            path: "standard input".to_owned(),
            error,
        })
    };
    let token = if token == "-" { read()? } else { token.to_owned() };
    Ok(LoginRequest {
        token: token.trim().to_owned(),
        trusts,
        ..LoginRequest::default()
    })
}

/// Has the person confirm at the issuer: in a browser of this machine if one can be opened, else on any machine.
async fn at_issuer(
    client: &mut Client,
    login: &Login,
    trusts: Vec<Vec<u8>>,
) -> Result<LoginResponse, Failure> {
    let opener = opener();
    if login.device || (opener.is_none() && !login.browser) {
        let begun = client.begin_login("").await?;
        return by_code(client, begun, trusts).await;
    }
    let loopback = Loopback::bind().await?;
    let begun = client.begin_login(loopback.redirect()).await?;
    if begun.state.is_empty() {
        // An earlier hub knows only the device flow.
        return by_code(client, begun, trusts).await;
    }
    in_browser(client, opener, loopback, begun, trusts).await
}

/// The program that opens addresses in a browser, if there is one.
pub fn opener() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(browsers) = variable("BROWSER") {
        return browsers.split(':').next().map(str::to_owned);
    }
    if cfg!(target_os = "macos") {
        return Some("open".to_owned());
    }
    let screen = variable("DISPLAY").or_else(|| variable("WAYLAND_DISPLAY"));
    screen.map(|_| "xdg-open".to_owned())
}

async fn in_browser(
    client: &mut Client,
    opener: Option<String>,
    loopback: Loopback,
    begun: BeginLoginResponse,
    trusts: Vec<Vec<u8>>,
) -> Result<LoginResponse, Failure> {
    let address = cleaned(&begun.address);
    if !address.starts_with("https://") && !address.starts_with("http://") {
        return Err(Failure::Hub(format!("{address:?} is no page to log in at")));
    }
    let opened = opener.is_some_and(|program| {
        let mut browser = std::process::Command::new(program);
        let browser = browser.arg(&address).stdin(Stdio::null());
        browser
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .is_ok()
    });
    note(&match opened {
        true => {
            format!("confirm the login in the browser; if none has opened, open {address} on this machine")
        }
        false => format!("open {address} in a browser on this machine, and confirm the login"),
    });
    let now = Timestamp::now();
    let left = time(begun.expires.as_ref()).map_or(0, |at| at.duration_since(now).as_secs());
    let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
    let code = loopback.code(&begun.state, left).await?;
    let request = LoginRequest {
        login: begun.login,
        code,
        trusts,
        ..LoginRequest::default()
    };
    client.login(request).await
}

/// Has the person confirm a code in a browser, on any machine, and waits for it.
async fn by_code(
    client: &mut Client,
    begun: BeginLoginResponse,
    trusts: Vec<Vec<u8>>,
) -> Result<LoginResponse, Failure> {
    let address = match begun.whole_address.as_str() {
        "" => &begun.address,
        address => address,
    };
    note(&format!(
        "open {} in a browser, and confirm the code {}; it is good until {}",
        cleaned(address),
        cleaned(&begun.code),
        rfc3339(begun.expires.as_ref()).unwrap_or_default()
    ));
    let mut wait = begun.wait_ms;
    loop {
        tokio::time::sleep(Duration::from_millis(wait.into())).await;
        let request = LoginRequest {
            login: begun.login.clone(),
            trusts: trusts.clone(),
            ..LoginRequest::default()
        };
        let answer = client.login(request).await?;
        if answer.wait_ms == 0 {
            return Ok(answer);
        }
        wait = answer.wait_ms;
    }
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
            if all.contexts.is_empty() && matches!(output, Format::Table | Format::Wide) {
                note("no logins; next: fleet login --hub URL --pin sha256:… --token -");
                return Ok(0);
            }
            let names = all.contexts.iter().map(|context| context.name.clone());
            maintenance::print(*output, &document(&all), names, || table(&all));
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
