//! A way to the hub that can be cut at any moment: bytes pass as they are, until all connections are closed at once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A forwarder at work.
pub struct Link {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    /// New connections are refused.
    down: AtomicBool,
    stopped: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// Listens at `listen` (port 0: a free one) and passes connections on to `upstream`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(listen: SocketAddr, upstream: SocketAddr) -> io::Result<Link> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            down: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            while !accepting.stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => accepting.take(&client),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Ok(Link { address, shared })
    }

    /// Closes every connection, in the middle of whatever it carries.
    pub fn cut(&self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in open.drain(..) {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Refuses connections from now on, or takes them again.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::Relaxed);
        if down {
            self.cut();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.cut();
    }
}

impl Shared {
    /// Passes a connection on, in both directions.
    fn take(&self, client: &TcpStream) {
        if self.down.load(Ordering::Relaxed) {
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
        let Ok(server) = TcpStream::connect_timeout(&self.upstream, Duration::from_secs(5)) else {
            return;
        };
        let _ = client.set_nonblocking(false);
        for (from, to) in [(client, &server), (&server, client)] {
            if let (Ok(from), Ok(to), Ok(known)) = (from.try_clone(), to.try_clone(), from.try_clone()) {
                self.open
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(known);
                std::thread::spawn(move || pass(from, to));
            }
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                if to.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_cut_closes_what_is_open_and_a_link_that_is_down_takes_nothing() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let echo = TcpListener::bind(any).unwrap();
        let upstream = echo.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in echo.incoming().flatten() {
                std::thread::spawn(move || pass(stream.try_clone().unwrap(), stream));
            }
        });
        let link = Link::start(any, upstream).unwrap();
        let says = |text: &[u8]| -> io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect(link.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(text)?;
            let mut back = vec![0; text.len()];
            stream.read_exact(&mut back)?;
            Ok(back)
        };
        assert_eq!(says(b"hello").unwrap(), b"hello");
        let mut open = TcpStream::connect(link.address).unwrap();
        open.write_all(b"x").unwrap();
        open.read_exact(&mut [0]).unwrap();
        link.cut();
        assert!(matches!(open.read(&mut [0]), Ok(0) | Err(_)));
        link.set_down(true);
        assert!(says(b"hello").is_err());
        link.set_down(false);
        assert_eq!(says(b"again").unwrap(), b"again");
    }
}
