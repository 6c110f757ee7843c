//! `fleet get`: one object with all that is known of it.

mod document;
mod facts;
mod render;
mod resolve;

use jiff::Timestamp;
use proto::v1::GetResponse;

use crate::arguments::{Get, HubArguments};
use crate::client::Client;
use crate::failure::Failure;
use crate::maintenance::print;

pub use self::document::document;
pub use self::render::since;
pub use self::resolve::{Alone, Found, collection, find, means_row, noun};

/// Carries the command out.
pub async fn get(hub: &HubArguments, arguments: &Get) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    let found = find(&mut client, &arguments.object).await?;
    show(arguments, &found);
    Ok(0)
}

/// Prints what was found.
pub fn show(arguments: &Get, found: &Found) {
    let names = std::iter::once(found.name());
    print(arguments.output, &document(found), names, || {
        render::text(found, Timestamp::now())
    });
}

/// The conditions of the first resource behind an object.
pub fn conditions(answer: &GetResponse) -> &[proto::v1::Condition] {
    answer
        .resources
        .first()
        .map_or(&[][..], |resource| &resource.conditions)
}
