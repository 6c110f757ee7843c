//! A fixed port before a hub that gets another one with each start.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

pub struct Relay {
    pub port: u16,
    to: Arc<AtomicU16>,
    cut: Arc<Notify>,
}

impl Relay {
    pub async fn start(to: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = Arc::new(AtomicU16::new(to));
        let cut = Arc::new(Notify::new());
        let (target, ends) = (to.clone(), cut.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (port, ends) = (target.load(Ordering::SeqCst), ends.clone());
                tokio::spawn(async move {
                    let carried = async {
                        if let Ok(mut hub) = TcpStream::connect(("127.0.0.1", port)).await {
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut hub).await;
                        }
                    };
                    tokio::select! {
                        () = carried => {}
                        () = ends.notified() => {}
                    }
                });
            }
        });
        Relay { port, to, cut }
    }

    /// Connections lead there. Those that are open break, as when a process has ended.
    pub fn lead_to(&self, port: u16) {
        self.to.store(port, Ordering::SeqCst);
        self.cut.notify_waiters();
    }
}
