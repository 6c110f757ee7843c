//! Certificates of a bed: each cluster's own authority, and the fleet's for the link.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// An authority with its files `<name>.crt` and `<name>.key` in a folder.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// Names in a certificate.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub common_name: String,
    pub organization: Option<String>,
    pub dns: Vec<String>,
    pub addresses: Vec<String>,
    pub uri: Option<String>,
}

impl Authority {
    /// A new authority.
    pub fn create(dir: &Path, name: &str) -> anyhow::Result<Authority> {
        fs::create_dir_all(dir)?;
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = parameters.self_signed(&key)?;
        fs::write(dir.join(format!("{name}.crt")), certificate.pem())?;
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(Authority {
            dir: dir.to_owned(),
            issuer: Issuer::new(parameters, key),
        })
    }

    /// An authority that was created before.
    pub fn load(dir: &Path, name: &str) -> anyhow::Result<Authority> {
        let read = |ending: &str| {
            let path = dir.join(format!("{name}.{ending}"));
            fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))
        };
        let key = KeyPair::from_pem(&read("key")?)?;
        Ok(Authority {
            dir: dir.to_owned(),
            issuer: Issuer::from_ca_cert_pem(&read("crt")?, key)?,
        })
    }

    /// Issues `<file>.crt` and `<file>.key`, good for server and client.
    pub fn issue(&self, file: &str, names: Names) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(names.dns)?;
        parameters
            .distinguished_name
            .push(DnType::CommonName, names.common_name);
        if let Some(organization) = names.organization {
            parameters
                .distinguished_name
                .push(DnType::OrganizationName, organization);
        }
        for address in names.addresses {
            let address: IpAddr = address
                .parse()
                .with_context(|| format!("{address} is not an address"))?;
            parameters.subject_alt_names.push(SanType::IpAddress(address));
        }
        if let Some(uri) = names.uri {
            parameters
                .subject_alt_names
                .push(SanType::URI(uri.as_str().try_into()?));
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        fs::write(self.dir.join(format!("{file}.crt")), certificate.pem())?;
        fs::write(self.dir.join(format!("{file}.key")), key.serialize_pem())?;
        Ok(())
    }
}

/// Key pair that signs ServiceAccount tokens: `sa.key` and `sa.pub`.
pub fn service_account_key(dir: &Path) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    fs::write(dir.join("sa.key"), key.serialize_pem())?;
    fs::write(dir.join("sa.pub"), key.public_key_pem())?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_was_written_down_issues_again() {
        let dir = tempfile::tempdir().unwrap();
        Authority::create(dir.path(), "ca").unwrap();
        let names = Names {
            common_name: "mallory".to_owned(),
            ..Names::default()
        };
        Authority::load(dir.path(), "ca")
            .unwrap()
            .issue("second", names)
            .unwrap();
        let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        crate::process::run(
            "openssl",
            &["verify", "-CAfile", &file("ca.crt"), &file("second.crt")],
        )
        .unwrap();
        assert!(Authority::load(dir.path(), "none").is_err());
    }
}
