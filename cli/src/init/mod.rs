//! `fleet hub init`: a hub from nothing, with the kubectl of the person who runs it, up to the first login.

mod manifests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proto::v1::{BindRequest, InviteRequest, LoginRequest, Scope};

pub use self::manifests::SYSTEM;

use self::manifests::SETTINGS;
use crate::arguments::{HubArguments, Init, KubeArguments};
use crate::authorities;
use crate::client::Client;
use crate::connection::{Connection, Proof, read};
use crate::contexts::{self, Context};
use crate::failure::Failure;
use crate::kubectl::Kubectl;
use crate::output::{note, print};
use crate::text::rfc3339;

/// The certificate by which the first login is made lives this long, and only in memory.
const FIRST: &str = "5m";
/// Pause between attempts to reach a hub that has just started.
const AGAIN: Duration = Duration::from_millis(500);
const DEPLOYMENT: &str = "deployment/fleet-hub";

/// Makes a hub, or prints what it is made of.
pub async fn init(arguments: &HubArguments, kube: &KubeArguments, init: &Init) -> Result<u8, Failure> {
    let authority = init.authority.as_deref().map(read).transpose()?;
    let authority = authority.map(|pem| String::from_utf8_lossy(&pem).into_owned());
    if init.print {
        let settings = manifests::settings(init, &BTreeMap::new());
        print(&manifests::all(init, &settings, authority.as_deref()));
        return Ok(0);
    }
    // Before anything is made.
    let path = contexts::path()?;
    contexts::load(&path)?;
    let kubectl = Kubectl::new(kube);
    apply(&kubectl, init, authority.as_deref()).await?;
    note("waiting until the hub serves");
    let wait = format!("--timeout={}s", init.wait.as_secs().max(1));
    kubectl
        .run(&["rollout", "status", "-n", SYSTEM, DEPLOYMENT, &wait])
        .await?;
    let hub = manifests::view_url(init);
    let context = log_in(arguments, init, &kubectl, &hub).await?;
    let (name, until) = (context.name.clone(), context.expires.clone());
    // Another command may have written it meanwhile.
    let mut all = contexts::load(&path)?;
    all.put(context);
    contexts::save(&path, &all)?;
    note(&format!(
        "the hub serves at {hub}; logged in as {} until {until}, context {name}; next: fleet clusters join NAME",
        init.admin
    ));
    Ok(0)
}

/// Applies the manifests. A hub that runs with other settings is started again: it reads them at its start.
async fn apply(kubectl: &Kubectl, init: &Init, authority: Option<&str>) -> Result<(), Failure> {
    let get = ["get", "-n", SYSTEM, "--ignore-not-found", "-o", "json"];
    let present = kubectl
        .run(&[&get[..], &["configmap", SETTINGS]].concat())
        .await?;
    let present = data(&present)?;
    let runs = kubectl
        .run(&[&get[..], &["deployment", "fleet-hub"]].concat())
        .await?;
    if let Some(release) = release(&runs) {
        if !init.set.is_empty() || init.image.is_some() || authority.is_some() {
            return Err(Failure::Usage(format!(
                "the hub is release {release} of Helm, which would take --set, --image and --authority back; give them to \
                 helm upgrade {release} as settings, image and authority.secret"
            )));
        }
        note(&format!(
            "the hub is release {release} of Helm: nothing is applied"
        ));
        return Ok(());
    }
    let settings = manifests::settings(init, &present);
    let objects = manifests::all(init, &settings, authority);
    note("applying the manifests of the hub");
    kubectl.give(&["apply", "-f", "-"], &objects).await?;
    if !runs.trim().is_empty() && settings != present {
        kubectl
            .run(&["rollout", "restart", "-n", SYSTEM, DEPLOYMENT])
            .await?;
    }
    Ok(())
}

/// Name of the release of Helm that a Deployment belongs to, JSON.
fn release(deployment: &str) -> Option<String> {
    let deployment: serde_json::Value = serde_json::from_str(deployment).ok()?;
    let metadata = deployment.get("metadata")?;
    let text = |part: &str, name: &str| metadata.get(part)?.get(name)?.as_str();
    (text("labels", "app.kubernetes.io/managed-by")? == "Helm").then(|| {
        text("annotations", "meta.helm.sh/release-name")
            .unwrap_or("fleet-hub")
            .to_owned()
    })
}

/// The data of a ConfigMap, JSON; nothing for one that is not there.
fn data(object: &str) -> Result<BTreeMap<String, String>, Failure> {
    if object.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let unreadable = |error| Failure::Usage(format!("ConfigMap {SETTINGS} cannot be read: {error}"));
    let object: serde_json::Value = serde_json::from_str(object).map_err(unreadable)?;
    match object.get("data") {
        Some(data) => serde_json::from_value(data.clone()).map_err(unreadable),
        None => Ok(BTreeMap::new()),
    }
}

/// Logs the first admin in: by a certificate out of the hub's pod, which lets it bind the role and open a session.
async fn log_in(
    arguments: &HubArguments,
    init: &Init,
    kubectl: &Kubectl,
    hub: &str,
) -> Result<Context, Failure> {
    let pem = certificate(kubectl, &init.admin).await?;
    // The first certificate is the person's own; the authorities come after the key.
    let trusted: Vec<_> = authorities::certificates(pem.as_bytes())
        .into_iter()
        .skip(1)
        .collect();
    let ca = authorities::pem(trusted.iter().map(AsRef::as_ref));
    let trusts = authorities::wire(&authorities::keys(ca.as_bytes()));
    let connection = |proof| Connection {
        hub: hub.to_owned(),
        server_name: arguments.server_name(),
        ca: ca.clone().into_bytes(),
        proof,
        context: None,
    };
    let by_certificate = || {
        connection(Proof::Certificate(
            pem.clone().into_bytes(),
            pem.clone().into_bytes(),
        ))
    };
    let mut admin = reach(by_certificate, arguments.timeout, init.wait).await?;
    make_admin(&mut admin, &init.admin).await?;
    let invite = InviteRequest {
        name: init.admin.clone(),
        groups: Vec::new(),
    };
    let token = admin.invite(invite).await?.token;
    let mut nobody = Client::open(connection(Proof::None), arguments.timeout).await?;
    let request = LoginRequest {
        token,
        trusts,
        ..LoginRequest::default()
    };
    let opened = nobody.login(request).await?;
    Ok(Context {
        name: init.name.clone().unwrap_or_else(|| init.address.clone()),
        hub: hub.to_owned(),
        server_name: arguments.server_name(),
        ca,
        person: opened.name,
        session: opened.session,
        expires: rfc3339(opened.expires.as_ref()).unwrap_or_default(),
    })
}

/// Certificate and key of the first admin, made in the hub's pod, and the authorities, PEM.
async fn certificate(kubectl: &Kubectl, admin: &str) -> Result<String, Failure> {
    let made = [
        "exec",
        "-n",
        SYSTEM,
        "deploy/fleet-hub",
        "--",
        "fleet-hub",
        "operator-certificate",
    ];
    let whose = [admin, "--role", "admin", "--valid", FIRST];
    kubectl.run(&[&made[..], &whose[..]].concat()).await
}

/// Connects to a hub whose Service or load balancer may not lead to it yet.
async fn reach(
    connection: impl Fn() -> Connection,
    limit: Duration,
    wait: Duration,
) -> Result<Client, Failure> {
    let until = Instant::now() + wait;
    let mut told = false;
    loop {
        let failure = match Client::open(connection(), limit).await {
            Ok(client) => return Ok(client),
            Err(failure) => failure,
        };
        let waits = matches!(failure, Failure::Unreachable { .. } | Failure::Timeout(_));
        if !waits || Instant::now() >= until {
            return Err(failure);
        }
        if !std::mem::replace(&mut told, true) {
            note(&format!("the hub runs and is not reached yet: {failure}"));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Binds the role over the whole fleet, unless it is bound.
async fn make_admin(client: &mut Client, name: &str) -> Result<(), Failure> {
    let whole = |scope: Option<&Scope>| scope.is_none_or(|scope| *scope == Scope::default());
    let bound = client.bindings().await?.bindings;
    let mut bound = bound.iter();
    if bound.any(|one| one.user == name && one.rights == "admin" && whole(one.scope.as_ref())) {
        return Ok(());
    }
    let bind = BindRequest {
        user: name.to_owned(),
        rights: "admin".to_owned(),
        ..BindRequest::default()
    };
    client.bind(bind).await.map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_of_helm_is_told_from_one_of_our_own() {
        let deployment = |managed: &str| {
            format!(
                r#"{{"metadata":{{"labels":{{"app.kubernetes.io/managed-by":"{managed}"}},"annotations":{{"meta.helm.sh/release-name":"hub"}}}}}}"#
            )
        };
        assert_eq!(release(&deployment("Helm")).as_deref(), Some("hub"));
        assert_eq!(release(&deployment("other")), None);
        assert_eq!(release(""), None);
        assert_eq!(release(r#"{"metadata":{}}"#), None);
    }

    #[test]
    fn settings_that_cannot_be_read_are_not_taken_for_none() {
        assert!(data("").unwrap().is_empty());
        assert!(data(r#"{"kind":"ConfigMap"}"#).unwrap().is_empty());
        assert_eq!(data(r#"{"data":{"a":"b"}}"#).unwrap()["a"], "b");
        assert!(data("error").is_err() && data(r#"{"data":{"a":1}}"#).is_err());
    }
}
