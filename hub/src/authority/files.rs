//! The authority's folder: one file per signer with its certificate and key, so that both change at once.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use proto::certificate::{self, KeyHash};

/// Certificate and key of what signs now.
const ACTIVE: &str = "active.pem";
/// The same of what will sign next.
const NEXT: &str = "next.pem";
/// Certificate of what has signed before.
const OLD: &str = "old.crt";

/// What signs.
pub struct Signer {
    pub certificate: CertificateDer<'static>,
    /// Of its public key.
    pub key: KeyHash,
    pub issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl Signer {
    /// A signer from the PEM of its certificate and its key.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn parse(pem: &str) -> anyhow::Result<Signer> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| anyhow::anyhow!("no certificate: {error}"))?
            .into_owned();
        let key = KeyPair::from_pem(key_section(pem)?).context("no private key")?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).context("no certificate of an authority")?;
        let facts = certificate::read(&certificate)?;
        let own = certificate::key_hash(&rcgen::PublicKeyData::subject_public_key_info(issuer.key()));
        anyhow::ensure!(facts.key == own, "certificate and key do not belong together");
        Ok(Signer {
            certificate_pem: certificate_pem(&certificate),
            certificate,
            key: facts.key,
            issuer,
        })
    }
}

/// The section of the private key.
fn key_section(pem: &str) -> anyhow::Result<&str> {
    let begin = pem.match_indices("-----BEGIN ").find(|(at, _)| {
        pem[*at..]
            .lines()
            .next()
            .is_some_and(|line| line.contains("PRIVATE KEY"))
    });
    begin.map(|(at, _)| &pem[at..]).context("no private key")
}

/// A certificate, PEM.
#[must_use]
pub fn certificate_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body: Vec<String> = lines.map(|line| format!("{line}\n")).collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n",
        body.concat()
    )
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A folder that may not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Folder {
        Folder(path.to_owned())
    }

    /// What signs, if there is anything.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn active(&self) -> anyhow::Result<Option<Signer>> {
        self.signer(ACTIVE)
    }

    /// What will sign next.
    ///
    /// # Errors
    /// As above.
    pub fn next(&self) -> anyhow::Result<Option<Signer>> {
        self.signer(NEXT)
    }

    /// What has signed before and is still trusted.
    ///
    /// # Errors
    /// As above.
    pub fn old(&self) -> anyhow::Result<Option<CertificateDer<'static>>> {
        let Some(text) = self.read(OLD)? else {
            return Ok(None);
        };
        let certificate = CertificateDer::from_pem_slice(text.as_bytes());
        let certificate =
            certificate.map_err(|error| anyhow::anyhow!("{}: {error}", self.path(OLD).display()))?;
        Ok(Some(certificate.into_owned()))
    }

    /// Makes the first signer, of its certificate and its key, PEM.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(&self, pem: &str) -> anyhow::Result<()> {
        self.write(ACTIVE, pem)
    }

    /// Makes the next signer.
    ///
    /// # Errors
    /// As above.
    pub fn announce(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        self.write(NEXT, &format!("{certificate}{key}"))
    }

    /// The next signer takes the place of the active one, which stays trusted.
    ///
    /// # Errors
    /// As above.
    pub fn activate(&self, active: &Signer) -> anyhow::Result<()> {
        // Without it the active one may be the next one already, and the old one would be lost.
        anyhow::ensure!(
            self.next()?.is_some(),
            "there is no next authority in {}",
            self.0.display()
        );
        // Written first: cut off after it, the active one is named twice, which changes nothing.
        self.write(OLD, &active.certificate_pem)?;
        let (from, to) = (self.path(NEXT), self.path(ACTIVE));
        fs::rename(&from, &to).with_context(|| format!("cannot rename {}", from.display()))?;
        self.sync()
    }

    /// The signer of before is no longer trusted.
    ///
    /// # Errors
    /// As above.
    pub fn retire(&self) -> anyhow::Result<()> {
        let path = self.path(OLD);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        self.sync()
    }

    /// Where it is.
    #[must_use]
    pub fn to_path(&self) -> PathBuf {
        self.0.clone()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn signer(&self, name: &str) -> anyhow::Result<Option<Signer>> {
        let Some(text) = self.read(name)? else {
            return Ok(None);
        };
        let signer = Signer::parse(&text);
        let hint = || {
            format!(
                "cannot use {} (certificate and key, PEM)",
                self.path(name).display()
            )
        };
        signer.with_context(hint).map(Some)
    }

    fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The whole file or nothing, readable by the hub alone.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (path, draft) = (self.path(name), self.path(&format!(".{name}")));
        let write = || -> std::io::Result<()> {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.0)?;
            let _ = fs::remove_file(&draft);
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().with_context(|| {
            format!(
                "cannot write {}; set --authority-dir to a folder on a volume",
                path.display()
            )
        })?;
        self.sync()
    }

    fn sync(&self) -> anyhow::Result<()> {
        let folder = fs::File::open(&self.0).and_then(|folder| folder.sync_all());
        folder.with_context(|| format!("cannot sync {}", self.0.display()))
    }
}
