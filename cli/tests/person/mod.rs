//! A person with the program, and backups to look at.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::path::PathBuf;
use std::process::{Command, Output};

use proto::v1::object_state::Body as Object;
use proto::v1::{BackupResult, BackupRun, BackupState, Condition, ObjectState};

use crate::harness::{Fleet, object};

/// A folder with certificates as a person has them.
pub struct Person {
    pub dir: tempfile::TempDir,
    pub hub: String,
}

impl Person {
    pub fn new(fleet: &Fleet) -> Person {
        Person::with(fleet, "operator")
    }

    /// One whose certificate gives this role.
    pub fn with(fleet: &Fleet, role: &str) -> Person {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = fleet.certificate(&format!("spiffe://fleet/{role}/eve"));
        std::fs::write(dir.path().join("cert"), cert).unwrap();
        std::fs::write(dir.path().join("key"), key).unwrap();
        std::fs::copy(fleet.dir.path().join("ca.crt"), dir.path().join("ca")).unwrap();
        let hub = format!("https://127.0.0.1:{}", fleet.running.view.port());
        Person { dir, hub }
    }

    /// Without certificate and hub: by a login, if there is one.
    pub fn by_login(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.dir.path().join("settings"))
            // No cluster of this machine is looked at in place of the hub.
            .env("HOME", self.dir.path())
            .env_remove("KUBECONFIG");
        for variable in [
            "FLEET_HUB",
            "FLEET_CA",
            "FLEET_CERT",
            "FLEET_KEY",
            "FLEET_SERVER_NAME",
            "FLEET_CONTEXT",
            "FLEET_CONTEXTS",
        ] {
            command.env_remove(variable);
        }
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
        let file = |name: &str| -> PathBuf { self.dir.path().join(name) };
        command
            .args(arguments)
            .env_remove("FLEET_CONTEXT")
            .env("HOME", self.dir.path())
            .env_remove("KUBECONFIG")
            .env("FLEET_HUB", &self.hub)
            .env("FLEET_CA", file("ca"))
            .env("FLEET_CERT", file("cert"))
            .env("FLEET_KEY", file("key"))
            .env_remove("FLEET_SERVER_NAME");
        command
    }

    /// Exit code, and everything that was printed.
    pub async fn run(&self, arguments: &[&str]) -> (i32, String) {
        outcome(self.command(arguments)).await
    }
}

pub async fn outcome(mut command: Command) -> (i32, String) {
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Only what was printed as data.
pub async fn data(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..Condition::default()
    }
}

pub fn backup(name: &str) -> ObjectState {
    let body = BackupState {
        repository_namespace: "ns".to_owned(),
        repository_name: "nas".to_owned(),
        schedule: "@yearly".to_owned(),
        last_run: Some(BackupRun {
            result: BackupResult::Succeeded.into(),
            finished: Some(proto::time::from_unix_millis(hub::now())),
            ..BackupRun::default()
        }),
        last_success: Some(proto::time::from_unix_millis(hub::now())),
        ..BackupState::default()
    };
    object(name, Object::Backup(body))
}
