//! The pod's user, as programs in it look it up. ssh ends at once where the image does not know the user that it runs as,
//! and restic writes `USER` into its locks only where the image does not know it. So each pod has a file of users of its own
//! that the C library reads and Go does not: Go compares uids as texts, the C library as numbers. Pure.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, ObjectFieldSelector, PodSecurityContext, Volume,
    VolumeMount,
};

use super::security::USER;

/// Annotation with the file's content. A ConfigMap could not serve: each pod may run as another user.
pub const ANNOTATION: &str = "backup.resticbackup.io/users";
const NAME: &str = "users";
const FILE: &str = "passwd";

/// Content of the file for a pod that runs so. `None` where only the image knows the user.
#[must_use]
pub fn users(security: &PodSecurityContext) -> Option<String> {
    let uid = security.run_as_user?;
    let gid = security.run_as_group.unwrap_or(if uid == 0 { 0 } else { USER });
    // The leading zero is what Go does not take for the same number.
    Some(format!("restic:x:0{uid}:0{gid}::/tmp:/bin/sh\n"))
}

/// The mount of the file.
#[must_use]
pub fn mount() -> VolumeMount {
    VolumeMount {
        sub_path: Some(FILE.to_owned()),
        ..super::mount(NAME, "/etc/passwd", true)
    }
}

/// The volume with the file.
#[must_use]
pub fn volume() -> Volume {
    let file = DownwardAPIVolumeFile {
        path: FILE.to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: format!("metadata.annotations['{ANNOTATION}']"),
        }),
        mode: Some(0o444),
        ..DownwardAPIVolumeFile::default()
    };
    Volume {
        name: NAME.to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![file]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go, os/user/lookup_unix.go, `matchUserIndexValue`: the line of a uid has it as the very text.
    fn go_knows(file: &str, uid: &str) -> bool {
        file.lines().any(|line| line.split(':').nth(2) == Some(uid))
    }

    #[test]
    fn the_c_library_knows_the_user_and_go_does_not() {
        for (uid, gid) in [(0, None), (65532, Some(65532)), (568, Some(568)), (1000, None)] {
            let security = PodSecurityContext {
                run_as_user: Some(uid),
                run_as_group: gid,
                ..PodSecurityContext::default()
            };
            let file = users(&security).unwrap();
            assert!(!go_knows(&file, &uid.to_string()), "{file}");
            let fields: Vec<&str> = file.trim_end().split(':').collect();
            assert_eq!((fields.len(), fields[2].parse()), (7, Ok(uid)), "{file}");
        }
        assert_eq!(users(&PodSecurityContext::default()), None);
    }
}
