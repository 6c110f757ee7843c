//! Long answers to people, part by part.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

use crate::access::Person;
use crate::hub::Hub;
use crate::now;

/// Somebody who reads nothing for this long is let go: others wait for the place.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a part. `false` when nobody reads it.
///
/// # Errors
/// Unauthenticated once the certificate or session of the person has ended or was revoked.
pub async fn pass<T>(
    hub: &Hub,
    person: &Person,
    sender: &mpsc::Sender<Result<T, Status>>,
    part: T,
) -> Result<bool, Status> {
    hub.authority.again(person, now())?;
    Ok(matches!(
        timeout(PATIENCE, sender.send(Ok(part))).await,
        Ok(Ok(()))
    ))
}

/// Ends an answer with an error.
pub async fn end<T>(sender: &mpsc::Sender<Result<T, Status>>, status: Status) {
    // An error means that nobody reads it.
    let _ = timeout(PATIENCE, sender.send(Err(status))).await;
}
