//! Which images a resource may name. A container gets the repository's keys, so its image is the operator's choice and
//! not that of everybody who may write a ResticBackup. Pure.

use std::fmt;

/// restic's own images.
const RESTIC: &[&str] = &[
    "ghcr.io/restic/restic:*",
    "ghcr.io/restic/restic@*",
    "docker.io/restic/restic:*",
    "docker.io/restic/restic@*",
    "restic/restic:*",
    "restic/restic@*",
];

/// Images, or beginnings of them that end in `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedImages(Vec<String>);

impl Default for AllowedImages {
    /// restic's own.
    fn default() -> AllowedImages {
        AllowedImages(RESTIC.iter().map(|&image| image.to_owned()).collect())
    }
}

impl AllowedImages {
    /// A list with commas; the default when it names nothing.
    ///
    /// # Errors
    /// For a `*` that is not at an end.
    pub fn parse(text: &str) -> Result<AllowedImages, String> {
        let list: Vec<String> = text
            .split(',')
            .map(str::trim)
            .filter(|image| !image.is_empty())
            .map(str::to_owned)
            .collect();
        if let Some(bad) = list.iter().find(|i| i.trim_end_matches('*').contains('*')) {
            return Err(format!(
                "{bad:?}: * stands at the end only, such as ghcr.io/restic/restic:*"
            ));
        }
        Ok(if list.is_empty() {
            AllowedImages::default()
        } else {
            AllowedImages(list)
        })
    }

    /// The same and one more: the operator's own image.
    #[must_use]
    pub fn and(mut self, image: &str) -> AllowedImages {
        self.0.push(image.to_owned());
        self
    }

    /// Whether pods that hold keys may run this image.
    #[must_use]
    pub fn allows(&self, image: &str) -> bool {
        self.0.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(beginning) => image.starts_with(beginning),
            None => allowed == image,
        })
    }

    /// Why an image may not be used, and what to do.
    #[must_use]
    pub fn refusal(&self, image: &str) -> String {
        format!(
            "image {image:?} is not on the operator's list: {self}. Use one of these, or have it added to --allowed-images (FLEET_ALLOWED_IMAGES in ConfigMap fleet-spoke-settings); its containers get the repository's keys"
        )
    }
}

impl fmt::Display for AllowedImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_gets_keys() {
        let images = AllowedImages::default();
        for good in [
            crds::RESTIC_IMAGE,
            "restic/restic:0.18.1",
            "ghcr.io/restic/restic@sha256:ab",
        ] {
            assert!(images.allows(good), "{good}");
        }
        for bad in [
            "evil/x:1",
            "ghcr.io/restic/restic-evil:1",
            "ghcr.io/restic/resticx",
            "",
            "evil.io/ghcr.io/restic/restic:1",
        ] {
            assert!(!images.allows(bad), "{bad}");
        }
        let own = AllowedImages::parse(" mirror.lan/restic:*, mirror.lan/tool:1 ,").unwrap();
        assert!(own.allows("mirror.lan/restic:0.18.1") && own.allows("mirror.lan/tool:1"));
        assert!(!own.allows("mirror.lan/tool:12") && !own.allows(crds::RESTIC_IMAGE));
        assert!(own.refusal("x").contains("FLEET_ALLOWED_IMAGES"));
        assert_eq!(AllowedImages::parse("").unwrap(), AllowedImages::default());
        assert!(AllowedImages::parse("*/restic:1").is_err());
        assert!(AllowedImages::parse("*").unwrap().allows("anything"));
    }
}
