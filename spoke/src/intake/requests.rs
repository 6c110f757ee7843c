//! The requests of one watch. kube's stream yields nothing between the list and the first change, so that the API server
//! has accepted a watch is seen from its requests only.

use axum::http::Request;
use kube::Client;
use kube::client::Body;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A list or a watch is requested.
    Sent,
    /// The API server delivers changes.
    WatchAccepted,
}

/// A client with which one type is watched; `note` is called with each step.
#[must_use]
pub fn noted(client: &Client, note: impl Fn(Step) + Clone + Send + Sync + 'static) -> Client {
    let (client, namespace) = (client.clone(), client.default_namespace().to_owned());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, note) = (client.clone(), note.clone());
        async move {
            let query = request.uri().query().unwrap_or_default();
            let watches = query.split('&').any(|pair| pair == "watch=true");
            note(Step::Sent);
            let response = client.send(request).await?;
            if watches && response.status().is_success() {
                note(Step::WatchAccepted);
            }
            Ok::<_, kube::Error>(response)
        }
    });
    Client::new(service, namespace)
}
