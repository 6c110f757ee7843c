//! `fleet kit`: what to keep outside of the cluster, so that its backups can be read when there is nothing left but them; and
//! the proof that a kit is enough.

mod allowed;
mod file;
mod others;
mod verify;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use proto::text::cleaned;
use serde_json::Value;

use self::file::{API, Origin, RESTIC};
use self::verify::Opened;
use crate::arguments::{HubArguments, Kit, KitCommand, KitMake, KubeArguments};
use crate::failure::{Failure, code};
use crate::kubectl::{Kubectl, is_chosen};
use crate::local::called;
use crate::migrate::cluster::Cluster;
use crate::migrate::original;
use crate::objects::{at, text};
use crate::output::{line, note, print};
use crate::run::yaml;
use crate::text::counted;

/// Makes a kit, or verifies one.
pub async fn kit(hub: &HubArguments, kube: &KubeArguments, kit: &Kit) -> Result<u8, Failure> {
    match &kit.command {
        Some(KitCommand::Verify { file }) => verify(file).await,
        None => make(hub, kube, &kit.make).await,
    }
}

async fn make(hub: &HubArguments, kube: &KubeArguments, make: &KitMake) -> Result<u8, Failure> {
    let (kit, mut missing) = collected(kube, make).await?;
    let text = content(&kit, make.with_passwords);
    match &make.to {
        Some(path) => {
            write(path, &text)?;
            let count = kit.repositories.len() as u64;
            note(&format!(
                "{}: {}",
                path.display(),
                counted(count, "repository", "repositories")
            ));
        }
        None => print(&text),
    }
    // Who chooses a part, or a cluster, knows that there is more.
    if make.namespace.is_none() && make.repository.is_none() && !is_chosen(kube) {
        match others::lacking(hub, &kit).await {
            Ok(lacking) => missing.extend(lacking),
            Err(failure) => note(&format!(
                "whether the hub knows repositories that this kit lacks could not be found out: {failure}"
            )),
        }
    }
    missing.iter().for_each(|text| note(text));
    note(&format!(
        "it holds the repositories of {} alone: each cluster needs a kit",
        kit.cluster.describe()
    ));
    note(match make.with_passwords {
        true => {
            "anyone who has this file can read every backup: keep it offline, encrypted or in a safe, and not beside the backups; then: fleet kit verify FILE"
        }
        false => {
            "passwords are not in it (--with-passwords --to FILE): keep these in a second place, without them no backup can be read"
        }
    });
    Ok(if missing.is_empty() { 0 } else { code::FINDING })
}

/// The kit of a cluster, and what is missing in it.
async fn collected(kube: &KubeArguments, make: &KitMake) -> Result<(file::Kit, Vec<String>), Failure> {
    let cluster = Cluster::new(kube, make.namespace.as_deref());
    let mut resources = cluster.needed(original::RESOURCES[0]).await?;
    if let Some(name) = &make.repository {
        resources.retain(|resource| at(resource).1 == name);
    }
    if resources.is_empty() {
        return Err(Failure::Usage(
            "there is no such ResticRepository; kubectl get rr -A lists them".to_owned(),
        ));
    }
    let of = |resource: &Value| {
        let secret = text(resource, "/spec/credentialsSecretRef/name");
        (at(resource).0.to_owned(), secret.to_owned())
    };
    let secrets = cluster.secrets(resources.iter().map(of).collect()).await?;
    let found = resources
        .iter()
        .map(|resource| file::repository(resource, &secrets, make.with_passwords));
    let (repositories, missing): (Vec<_>, Vec<_>) = found.unzip();
    let kit = file::Kit {
        cluster: origin(kube).await,
        repositories,
        ..empty()
    };
    Ok((kit, missing.into_iter().flatten().collect()))
}

/// A kit without a repository.
fn empty() -> file::Kit {
    file::Kit {
        api_version: API.to_owned(),
        kind: "RecoveryKit".to_owned(),
        made: Timestamp::now().to_string(),
        restic: RESTIC.to_owned(),
        cluster: Origin::default(),
        repositories: Vec::new(),
    }
}

/// The cluster that kubectl reaches, as far as the person may know.
async fn origin(kube: &KubeArguments) -> Origin {
    let kubectl = Kubectl::new(kube);
    let uid = ["get", "namespace", "kube-system", "-o", "json"];
    let (name, uid) = tokio::join!(called(&kubectl), kubectl.json(&uid));
    Origin {
        name: name.unwrap_or_default(),
        uid: uid.map_or_else(
            |_| String::new(),
            |found| text(&found, "/metadata/uid").to_owned(),
        ),
    }
}

/// The file: what a person reads first, and then the data.
fn content(kit: &file::Kit, with_passwords: bool) -> String {
    let mut head = format!(
        "# Recovery kit of the restic repositories of {}, made {}. Each cluster needs one.\n\
         # All that is needed beside it is restic {} or later: https://restic.net. See byHand of each repository.\n\
         # Snapshots of the operator hold the volume below /backup; those of other tools where they have put it.\n\
         # Proof that it works, from any machine that reaches the storage: fleet kit verify FILE\n",
        kit.cluster.describe(),
        kit.made,
        kit.restic
    );
    head += if with_passwords {
        "# IT HOLDS PASSWORDS: anyone who has it can read every backup.\n"
    } else {
        "# It holds no passwords: the variables without a value are kept elsewhere.\n"
    };
    let value = serde_json::to_value(kit).unwrap_or_default();
    head + &yaml(&value)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::Output {
        path: path.display().to_string(),
        error,
    })
}

async fn verify(path: &Path) -> Result<u8, Failure> {
    let content = std::fs::read_to_string(path).map_err(|error| Failure::File {
        path: path.display().to_string(),
        error,
    })?;
    let bad = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let kit = verify::read(&content).map_err(bad)?;
    let version = verify::version().await.map_err(Failure::Usage)?;
    if !verify::is_at_least(&version, "0.18") {
        note(&format!(
            "this restic is {version}; what is told about failures is for 0.18 and later"
        ));
    }
    // What is not valid Unicode is no value that restic would take.
    let given: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    note(&format!("a kit of {}", cleaned(&kit.cluster.describe())));
    let mut failed = 0;
    for repository in &kit.repositories {
        let name = format!("{}/{}", repository.namespace, repository.name);
        match verify::open(repository, &given).await {
            Opened::Well { id, snapshots } => {
                let id = id.get(..8).unwrap_or(&id);
                line(&format!("{name}: opened, id {id}, {snapshots} snapshots"));
            }
            Opened::Empty { id } => {
                failed += 1;
                let id = id.get(..8).unwrap_or(&id);
                line(&format!("{name}: opened, id {id}, but it holds NO snapshot"));
            }
            Opened::Not(why) => {
                failed += 1;
                line(&format!("{name}: NOT opened: {why}"));
            }
        }
    }
    if kit.repositories.is_empty() {
        return Err(bad("it names no repository".to_owned()));
    }
    Ok(if failed == 0 { 0 } else { code::FINDING })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_kit_is_read_back_as_it_was_written() {
        let variables = [
            (
                "RESTIC_PASSWORD".to_owned(),
                Some("a 'b' \"c\": #d\n é".to_owned()),
            ),
            ("AWS_ACCESS_KEY_ID".to_owned(), None),
        ];
        let kit = file::Kit {
            cluster: Origin {
                name: "berlin".to_owned(),
                uid: "0123".to_owned(),
            },
            repositories: vec![file::Repository {
                name: "nas".to_owned(),
                url: "s3:x/y".to_owned(),
                id: "0123".to_owned(),
                variables: variables.into(),
                by_hand: vec!["export X='…'   # y".to_owned()],
                ..file::Repository::default()
            }],
            ..empty()
        };
        let text = content(&kit, true);
        assert_eq!(verify::read(&text).unwrap(), kit, "{text}");
        assert!(text.contains("IT HOLDS PASSWORDS"));
        assert!(text.contains("of cluster berlin (uid 0123)"), "{text}");
        let earlier = text.replace("cluster:\n  name: berlin\n  uid: \"0123\"\n", "");
        assert_ne!(text, earlier);
        let earlier = verify::read(&earlier).unwrap();
        assert_eq!(earlier.cluster, Origin::default(), "a kit of an earlier version");
        assert!(verify::read("kind: Other\napiVersion: v1").is_err());
    }

    #[test]
    fn a_kit_is_readable_by_its_owner_alone_and_replaces_none() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kit.yaml");
        write(&path, "x").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(write(&path, "y"), Err(Failure::Output { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x");
    }
}
