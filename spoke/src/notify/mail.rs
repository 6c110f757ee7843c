//! Mail by SMTP.

use std::time::Duration;

use crds::notifications::{EmailConfig, MailTls};
use lettre::message::{Mailbox, Mailboxes, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use super::http::Failure;
use super::requests::{self, CA, Data};
use super::trust::{self, Trust};
use super::{Addresses, Notification, render};

/// Longest wait for one command.
const COMMAND: Duration = Duration::from_secs(10);
const PORT: u16 = 587;
/// TLS from the first byte.
const PORT_TLS: u16 = 465;

/// Sends a mail.
///
/// # Errors
/// The server has not taken it.
pub async fn send(
    (addresses, trust): (Addresses, &Trust),
    config: &EmailConfig,
    notification: &Notification,
    secret: Option<&Data>,
) -> Result<(), Failure> {
    let message = message(config, notification)?;
    let (host, port) = server(config.smtp_server.as_deref().unwrap_or_default())?;
    let credentials = credentials(secret)?;
    let mode = mode(config.tls, port, credentials.is_some())?;
    let ca = secret.and_then(|secret| secret.get(CA));
    let tls = tls(mode, &host, trust, ca.map(Vec::as_slice)).await?;
    let mut last = Failure::later("no connection could be made");
    for address in addresses.resolve(&host, port).await? {
        // By address: the name could have another one by now. The certificate is checked against the name.
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.ip().to_string())
            .port(port)
            .tls(tls.clone())
            .hello_name(ClientId::Domain("restic-fleet".to_owned()))
            .timeout(Some(COMMAND));
        if let Some(credentials) = &credentials {
            transport = transport.credentials(credentials.clone());
        }
        match transport.build().send(message.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) => last = failure(&error),
        }
        if !last.again {
            break;
        }
    }
    Err(last)
}

/// What to log in with. A Secret with a certificate authority alone is not for that.
fn credentials(secret: Option<&Data>) -> Result<Option<Credentials>, Failure> {
    let Some(secret) = secret else {
        return Ok(None);
    };
    let (username, password) = (
        requests::text(secret, "username")?,
        requests::text(secret, "password")?,
    );
    match username.zip(password) {
        Some((username, password)) => Ok(Some(Credentials::new(username, password))),
        None if requests::is_only_ca(secret) => Ok(None),
        None => Err(Failure::later("the Secret needs username and password")),
    }
}

/// Without what the server has said: it may quote what it was sent.
fn failure(error: &lettre::transport::smtp::Error) -> Failure {
    match error.status() {
        Some(code) if error.is_permanent() => Failure::last(format!("SMTP status {code}")),
        Some(code) => Failure::later(format!("SMTP status {code}")),
        None if error.is_timeout() => Failure::later("the mail server did not answer in time"),
        None if error.is_tls() => {
            Failure::later("no TLS with the mail server: its certificate is not trusted, or it has none")
        }
        None if error.is_client() => {
            Failure::last("the mail server does not offer what is asked for: TLS, or a way to log in")
        }
        None => Failure::later("the mail server could not be reached, or the connection broke"),
    }
}

/// Host and port of `host`, `host:port`, `[address]` or `[address]:port`.
fn server(text: &str) -> Result<(String, u16), Failure> {
    let bad = || Failure::last("smtpServer is not a host and a port");
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
        _ => (text, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || port == 0 {
        return Err(bad());
    }
    Ok((host.to_owned(), port))
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Never,
    WhereOffered,
    StartTls,
    Implicit,
}

fn mode(asked: Option<MailTls>, port: u16, password: bool) -> Result<Mode, Failure> {
    Ok(match asked {
        Some(MailTls::None) if password => return Err(Failure::last("a password is not sent without TLS")),
        Some(MailTls::None) => Mode::Never,
        Some(MailTls::Implicit) => Mode::Implicit,
        None if port == PORT_TLS => Mode::Implicit,
        None if !password => Mode::WhereOffered,
        _ => Mode::StartTls,
    })
}

async fn tls(mode: Mode, host: &str, trust: &Trust, ca: Option<&[u8]>) -> Result<Tls, Failure> {
    if mode == Mode::Never {
        return Ok(Tls::None);
    }
    let unusable = |_| Failure::last("TLS cannot be set up");
    let own = ca.map(trust::authorities).transpose()?.unwrap_or_default();
    // Not the library's own store of the machine's: that reads the files anew for each mail.
    let mut parameters = TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::None);
    for certificate in trust.machine().await?.certificates.iter().chain(&own) {
        let certificate = Certificate::from_der(certificate.to_vec()).map_err(unusable)?;
        parameters = parameters.add_root_certificate(certificate);
    }
    let parameters = parameters.build_rustls().map_err(unusable)?;
    Ok(match mode {
        Mode::Never => Tls::None,
        Mode::WhereOffered => Tls::Opportunistic(parameters),
        Mode::StartTls => Tls::Required(parameters),
        Mode::Implicit => Tls::Wrapper(parameters),
    })
}

fn message(config: &EmailConfig, notification: &Notification) -> Result<Message, Failure> {
    let from = config.from.as_deref().unwrap_or_default();
    let from: Mailbox = from
        .parse()
        .map_err(|_| Failure::last("from is no mail address"))?;
    let to = config.to.as_deref().unwrap_or_default();
    let to: Mailboxes = to
        .parse()
        .map_err(|_| Failure::last("to holds no mail addresses"))?;
    let subject = config.subject.clone().filter(|subject| !subject.is_empty());
    let id = format!("<{}@restic-fleet>", notification.id);
    Message::builder()
        .from(from)
        .mailbox(header::To::from(to))
        .subject(subject.unwrap_or_else(|| render::title(notification)))
        // The same at each attempt, so that a mail that arrives twice is shown once.
        .message_id(Some(id))
        .header(header::ContentType::TEXT_PLAIN)
        .body(format!(
            "{}\n\n{}\n",
            render::title(notification),
            render::text(notification)
        ))
        .map_err(|_| Failure::last("the mail cannot be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts_with_and_without_ports() {
        let is = |text: &str| server(text).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(is("smtp.example.org").unwrap(), "smtp.example.org 587");
        assert_eq!(is("s:25").unwrap(), "s 25");
        assert_eq!(is("[fd00::1]:465").unwrap(), "fd00::1 465");
        assert_eq!(is("[fd00::1]").unwrap(), "fd00::1 587");
        for bad in ["", ":25", "s:0", "s:mail"] {
            assert!(is(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_password_goes_out_in_plain_text() {
        assert!(mode(Some(MailTls::None), 25, true).is_err());
        for (asked, port, password, expected) in [
            (Some(MailTls::None), 25, false, Mode::Never),
            (None, 25, false, Mode::WhereOffered),
            (None, 25, true, Mode::StartTls),
            (None, 465, true, Mode::Implicit),
            (Some(MailTls::StartTls), 465, false, Mode::StartTls),
            (Some(MailTls::Implicit), 25, false, Mode::Implicit),
        ] {
            assert_eq!(
                mode(asked, port, password),
                Ok(expected),
                "{asked:?} {port} {password}"
            );
        }
    }

    #[test]
    fn a_secret_without_user_name_and_password_is_not_the_same_as_none() {
        let secret = |keys: &[&str]| {
            let data = keys.iter().map(|key| ((*key).to_owned(), b"x".to_vec()));
            credentials(Some(&data.collect())).map(|found| found.is_some())
        };
        assert!(credentials(None).unwrap().is_none());
        assert_eq!(secret(&["username", "password", "ca.crt"]), Ok(true));
        assert_eq!(secret(&["ca.crt"]), Ok(false));
        for bad in [
            &[][..],
            &["username"],
            &["username", "pasword"],
            &["user", "password"],
            &["ca.crt", "pasword"],
        ] {
            let failure = secret(bad).unwrap_err();
            assert_eq!(failure.text, "the Secret needs username and password", "{bad:?}");
        }
    }
}
