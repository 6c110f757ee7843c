//! Mail by SMTP.

use std::time::Duration;

use crds::notifications::{EmailConfig, MailTls};
use lettre::message::{Mailbox, Mailboxes, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use super::http::Failure;
use super::requests::{self, Data};
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
    addresses: Addresses,
    config: &EmailConfig,
    notification: &Notification,
    secret: &Data,
) -> Result<(), Failure> {
    let message = message(config, notification)?;
    let (host, port) = server(config.smtp_server.as_deref().unwrap_or_default())?;
    let credentials = match (
        requests::text(secret, "username")?,
        requests::text(secret, "password")?,
    ) {
        (Some(username), Some(password)) => Some(Credentials::new(username, password)),
        _ => None,
    };
    let tls = tls(config.tls, &host, port, credentials.is_some(), secret)?;
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

fn tls(asked: Option<MailTls>, host: &str, port: u16, secret: bool, data: &Data) -> Result<Tls, Failure> {
    if asked == Some(MailTls::None) {
        return if secret {
            Err(Failure::last("a password is not sent without TLS"))
        } else {
            Ok(Tls::None)
        };
    }
    let mut parameters = TlsParameters::builder(host.to_owned());
    if let Some(pem) = data.get("ca.crt") {
        let certificate = Certificate::from_pem(pem);
        let certificate =
            certificate.map_err(|_| Failure::last("ca.crt of the Secret holds no certificate in PEM"))?;
        parameters = parameters.add_root_certificate(certificate);
    }
    let parameters = parameters
        .build_rustls()
        .map_err(|_| Failure::last("TLS cannot be set up"))?;
    Ok(match asked {
        Some(MailTls::Implicit) => Tls::Wrapper(parameters),
        None if port == PORT_TLS => Tls::Wrapper(parameters),
        None if !secret => Tls::Opportunistic(parameters),
        _ => Tls::Required(parameters),
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
        let data = Data::new();
        assert!(tls(Some(MailTls::None), "s", 25, true, &data).is_err());
        assert!(matches!(
            tls(Some(MailTls::None), "s", 25, false, &data),
            Ok(Tls::None)
        ));
        assert!(matches!(
            tls(None, "s", 25, false, &data),
            Ok(Tls::Opportunistic(_))
        ));
        assert!(matches!(tls(None, "s", 25, true, &data), Ok(Tls::Required(_))));
        assert!(matches!(tls(None, "s", 465, true, &data), Ok(Tls::Wrapper(_))));
        assert!(matches!(
            tls(Some(MailTls::StartTls), "s", 465, false, &data),
            Ok(Tls::Required(_))
        ));
    }
}
