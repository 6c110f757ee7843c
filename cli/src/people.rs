//! `fleet people`: rights of people and groups, login tokens and sessions.

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::{
    BindRequest, InviteRequest, ListBindingsResponse, RevokeCertificateRequest, RevokeRequest, Scope,
    UnbindRequest,
};
use serde_json::{Value, json};

use crate::arguments::{Bind, Format, HubArguments, PeopleCommand};
use crate::client::Client;
use crate::document::API_VERSION;
use crate::failure::Failure;
use crate::login::{scope, scope_text};
use crate::output::{self, line, note, print};
use crate::render::align;
use crate::run::yaml;
use crate::text::{ago, rfc3339, until};

/// Carries a command out.
pub async fn people(arguments: &HubArguments, command: PeopleCommand) -> Result<u8, Failure> {
    let mut client = Client::connect(arguments).await?;
    match command {
        PeopleCommand::List { output } => {
            let answer = client.bindings().await?;
            match output {
                Format::Json => line(&format!("{:#}", document(&answer))),
                Format::Yaml => print(&yaml(&document(&answer))),
                Format::Name => answer
                    .bindings
                    .iter()
                    .for_each(|binding| line(&binding.id.to_string())),
                format @ (Format::Table | Format::Wide) => {
                    output::table(&table(&answer, Timestamp::now()), format == Format::Wide);
                }
            }
        }
        PeopleCommand::Bind(bind) => {
            let id = client.bind(request(bind)).await?;
            note(&format!("binding {id}; it takes effect at once"));
        }
        PeopleCommand::Unbind { id } => {
            client.unbind(UnbindRequest { id }).await?;
            note("removed; it takes effect at once");
        }
        PeopleCommand::Invite { name, group } => {
            let request = InviteRequest { name, groups: group };
            let answer = client.invite(request).await?;
            line(&cleaned(&answer.token));
            let trust = match answer.pin.as_str() {
                "" => "--ca FILE".to_owned(),
                pin => format!("--pin sha256:{}", cleaned(pin)),
            };
            note(&format!(
                "good once, {}; next: fleet login --hub {} {trust} --token -",
                until(answer.expires.as_ref(), Timestamp::now()),
                client.address(),
            ));
        }
        PeopleCommand::Revoke { name } => {
            let request = RevokeRequest { name: name.clone() };
            let sessions = client.revoke(request).await?;
            note(&format!(
                "sessions of {name} that were ended: {sessions}. Its login tokens are void; its rights stay bound (fleet people \
                 unbind), and a certificate of that name still opens the hub (fleet people revoke-certificate)"
            ));
        }
        PeopleCommand::RevokeCertificate { name, serial } => {
            let request = RevokeCertificateRequest {
                name: name.unwrap_or_default(),
                serial: serial.unwrap_or_default(),
            };
            client.revoke_certificate(request).await?;
            note("refused from now on; what was open by it has ended");
        }
    }
    Ok(0)
}

fn request(bind: Bind) -> BindRequest {
    BindRequest {
        user: bind.user.unwrap_or_default(),
        group: bind.group.unwrap_or_default(),
        rights: bind.rights,
        scope: Some(Scope {
            clusters: bind.cluster,
            namespaces: bind.namespace,
            repositories: bind.repository,
        }),
    }
}

fn table(answer: &ListBindingsResponse, now: Timestamp) -> String {
    let heading = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut lines: Vec<Vec<String>> = vec![heading(&["ID", "WHO", "RIGHTS", "WHERE", "SINCE", "BY"])];
    lines.extend(answer.bindings.iter().map(|binding| {
        let who = if binding.group.is_empty() {
            format!("user {}", binding.user)
        } else {
            format!("group {}", binding.group)
        };
        vec![
            binding.id.to_string(),
            who,
            binding.rights.clone(),
            scope_text(binding.scope.as_ref()),
            ago(binding.created.as_ref(), now),
            binding.created_by.clone(),
        ]
    }));
    let mut text = align(&lines);
    if !answer.sessions.is_empty() {
        let mut lines: Vec<Vec<String>> = vec![heading(&["LOGGED IN", "GROUPS", "BY", "SINCE", "ENDS"])];
        lines.extend(answer.sessions.iter().map(|session| {
            vec![
                session.name.clone(),
                session.groups.join(","),
                session.method.clone(),
                ago(session.created.as_ref(), now),
                until(session.expires.as_ref(), now),
            ]
        }));
        text.push('\n');
        text.push_str(&align(&lines));
    }
    if !answer.revoked.is_empty() {
        let mut lines: Vec<Vec<String>> = vec![heading(&["REFUSED CERTIFICATES", "SINCE", "BY"])];
        lines.extend(answer.revoked.iter().map(|revoked| {
            let which = match revoked.serial.as_str() {
                "" => format!("of {}, made before", revoked.name),
                serial => serial.to_owned(),
            };
            vec![which, ago(revoked.at.as_ref(), now), revoked.by.clone()]
        }));
        text.push('\n');
        text.push_str(&align(&lines));
    }
    text
}

fn document(answer: &ListBindingsResponse) -> Value {
    let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    let items: Vec<Value> = answer
        .bindings
        .iter()
        .map(|binding| {
            json!({
                "id": binding.id, "user": text(&binding.user), "group": text(&binding.group), "rights": binding.rights,
                "scope": scope(binding.scope.as_ref()), "created": rfc3339(binding.created.as_ref()),
                "createdBy": binding.created_by,
            })
        })
        .collect();
    let sessions: Vec<Value> = answer
        .sessions
        .iter()
        .map(|session| {
            json!({
                "name": session.name, "groups": session.groups, "method": session.method,
                "created": rfc3339(session.created.as_ref()), "expires": rfc3339(session.expires.as_ref()),
            })
        })
        .collect();
    let revoked: Vec<Value> = answer
        .revoked
        .iter()
        .map(|one| {
            json!({
                "name": text(&one.name), "serial": text(&one.serial), "at": rfc3339(one.at.as_ref()), "by": one.by,
            })
        })
        .collect();
    json!({
        "apiVersion": API_VERSION, "kind": "BindingList", "asOf": rfc3339(answer.as_of.as_ref()), "items": items,
        "sessions": sessions, "revokedCertificates": revoked,
    })
}
