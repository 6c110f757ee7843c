//! What actors, services and the link exchange inside of the process: queues and boards in memory, without a client.
//! Nothing here is needed after a restart.

pub mod board;
mod browsing;
mod collectors;
mod commands;
mod copies;
mod coverage;
mod creations;
mod leases;
mod name;
pub mod outbox;

pub use board::{Board, Finished, Operation, Pinned, Progress, running};
pub use browsing::Browsing;
pub use collectors::{Collection, Collectors};
pub use commands::{Arrived, Behalf, CommandedRun, Commands, Unlocking};
pub use copies::Copies;
pub use coverage::Coverage;
pub use creations::Creations;
pub use leases::{Event, Leases, Question};
pub use name::{CertificateName, Uncertified, Waits, mark as mark_waiting, says_so as says_it_waits};
pub use outbox::Outbox;
