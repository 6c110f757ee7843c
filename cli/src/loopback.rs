//! Waits on a loopback address for what a browser brings back from an issuer (RFC 8252).

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::failure::Failure;

/// Longest request: issuers send a code and a state.
const LONGEST: usize = 16 << 10;
/// Browsers open connections beforehand, and leave them idle.
const CONNECTIONS: usize = 32;
const IDLE: Duration = Duration::from_secs(10);

/// What a request brings.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Brought {
    /// Nothing for us.
    Other,
    /// Not what was asked for: another page has sent the browser here.
    Foreign,
    Code(String),
    /// The issuer or the person has declined.
    Declined(String),
}

/// What the first line of a request brings, for a login with a state. Pure.
fn brought(line: &str, state: &str) -> Brought {
    let mut words = line.split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let query = target
        .strip_prefix("/callback?")
        .filter(|_| method == Some("GET"));
    let Some(query) = query else {
        return Brought::Other;
    };
    let value = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    if value("state").as_deref() != Some(state) {
        return Brought::Foreign;
    }
    match (value("code"), value("error")) {
        (Some(code), None) if !code.is_empty() => Brought::Code(code),
        (_, error) => Brought::Declined(error.unwrap_or_else(|| "no code came back".to_owned())),
    }
}

/// A listener on a port that the system has chosen.
pub struct Loopback {
    listener: TcpListener,
    redirect: String,
}

impl Loopback {
    /// Listens.
    ///
    /// # Errors
    /// When there is no loopback address.
    pub async fn bind() -> Result<Loopback, Failure> {
        let failed = |error: std::io::Error| {
            Failure::Usage(format!(
                "no port on 127.0.0.1 for the browser to come back to: {error}; use --device"
            ))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Loopback {
            listener,
            redirect: format!("http://127.0.0.1:{port}/callback"),
        })
    }

    /// Where the browser is to come back to.
    #[must_use]
    pub fn redirect(&self) -> &str {
        &self.redirect
    }

    /// The code that comes back with a state.
    ///
    /// # Errors
    /// When it was declined, or does not come in time.
    pub async fn code(self, state: &str, left: Duration) -> Result<String, Failure> {
        let late = |_| Failure::Usage("nobody has confirmed the login in time: begin it again".to_owned());
        timeout(left, self.wait(state)).await.map_err(late)?
    }

    async fn wait(&self, state: &str) -> Result<String, Failure> {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let (out, mut answers) = mpsc::channel(1);
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(found) = answers.recv() => return found,
            };
            let (Ok((stream, _)), Ok(place)) = (stream, places.clone().try_acquire_owned()) else {
                continue;
            };
            let (state, out) = (state.to_owned(), out.clone());
            tokio::spawn(async move {
                let _place = place;
                if let Ok(Some(found)) = timeout(IDLE, serve(stream, &state)).await {
                    // An error means that another one came first.
                    let _ = out.send(found).await;
                }
            });
        }
    }
}

/// Answers one request; what it brings, if that is about the login.
async fn serve(mut stream: TcpStream, state: &str) -> Option<Result<String, Failure>> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 2048];
        let length = stream.read(&mut part).await.ok()?;
        request.extend_from_slice(part.get(..length).filter(|part| !part.is_empty())?);
        if request.len() > LONGEST {
            return None;
        }
    }
    let request = String::from_utf8_lossy(&request);
    let found = brought(request.lines().next().unwrap_or_default(), state);
    let (status, text) = match &found {
        Brought::Code(_) => (
            "200 OK",
            "The terminal goes on with your login. You may close this page.",
        ),
        Brought::Declined(_) => ("200 OK", "The login was declined. You may close this page."),
        Brought::Foreign => (
            "400 Bad Request",
            "This is not the login that the terminal waits for.",
        ),
        Brought::Other => ("404 Not Found", "There is nothing here."),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Referrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    // The page is a courtesy.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    match found {
        Brought::Code(code) => Some(Ok(code)),
        Brought::Declined(error) => Some(Err(Failure::Forbidden(format!(
            "the issuer ended this login: {}",
            proto::text::cleaned(&error)
        )))),
        Brought::Foreign | Brought::Other => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_this_login_counts() {
        let ask = |target: &str| brought(&format!("GET {target} HTTP/1.1"), "s1");
        assert_eq!(
            ask("/callback?code=a%2Bb&state=s1"),
            Brought::Code("a+b".to_owned())
        );
        assert_eq!(
            ask("/callback?error=access_denied&state=s1"),
            Brought::Declined("access_denied".to_owned())
        );
        for foreign in [
            "/callback?code=a&state=s2",
            "/callback?code=a",
            "/callback?error=x",
        ] {
            assert_eq!(ask(foreign), Brought::Foreign, "{foreign}");
        }
        for other in ["/favicon.ico", "/callback", "/", "/x/callback?code=a&state=s1"] {
            assert_eq!(ask(other), Brought::Other, "{other}");
        }
        assert_eq!(
            brought("POST /callback?code=a&state=s1 HTTP/1.1", "s1"),
            Brought::Other
        );
        assert!(matches!(ask("/callback?code=&state=s1"), Brought::Declined(_)));
    }

    #[tokio::test]
    async fn idle_connections_and_foreign_pages_hold_nobody_up() {
        let loopback = Loopback::bind().await.unwrap();
        let address = loopback
            .redirect()
            .replace("http://", "")
            .replace("/callback", "");
        let mut idle = Vec::new();
        for _ in 0..5 {
            idle.push(TcpStream::connect(&address).await.unwrap());
        }
        let send = async |target: &str| {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (found, ()) = tokio::join!(loopback.code("s1", Duration::from_secs(20)), async {
            assert!(
                send("/callback?code=evil&state=no")
                    .await
                    .starts_with("HTTP/1.1 400")
            );
            assert!(send("/favicon.ico").await.starts_with("HTTP/1.1 404"));
            assert!(
                send("/callback?code=good&state=s1")
                    .await
                    .contains("close this page")
            );
        });
        assert_eq!(found.unwrap(), "good");
    }
}
