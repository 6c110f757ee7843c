//! `fleet dashboard`: the dashboard's address, and a login for it. The login token is typed or pasted into the page: an
//! address ends up in histories and logs.

use std::io::IsTerminal as _;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use proto::text::cleaned;
use serde_json::json;

use crate::arguments::{Dashboard, Format, HubArguments};
use crate::client::Client;
use crate::document::API_VERSION;
use crate::failure::Failure;
use crate::login::opener;
use crate::output::{line, note, print};
use crate::run::yaml;
use crate::text::{rfc3339, until};

/// Makes a login token for the person itself, and prints where it is used.
pub async fn dashboard(arguments: &HubArguments, dashboard: &Dashboard) -> Result<u8, Failure> {
    let mut client = Client::connect(arguments).await?;
    let login = client.create_login().await?;
    let address = format!("{}/", client.address().trim_end_matches('/'));
    let token = cleaned(&login.token);
    let document = || {
        json!({
            "apiVersion": API_VERSION, "kind": "DashboardLogin", "address": address, "token": token,
            "expires": rfc3339(login.expires.as_ref()),
        })
    };
    match dashboard.output {
        Format::Json => line(&format!("{:#}", document())),
        Format::Yaml => print(&yaml(&document())),
        Format::Name => line(&address),
        Format::Table | Format::Wide => {
            line(&format!("address  {address}\nlogin    {token}"));
            let good = until(login.expires.as_ref(), Timestamp::now());
            note(&format!(
                "paste the login into the page; it is good once, {good}, and has the rights of this login"
            ));
            if !dashboard.no_open && std::io::stdout().is_terminal() {
                open(&address);
            }
        }
    }
    Ok(0)
}

/// Opens an address in the browser of this machine, if it has one. Without one the address stands above.
fn open(address: &str) {
    let Some(program) = opener() else { return };
    let mut command = Command::new(program);
    command
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if command.spawn().is_err() {
        note("no browser could be opened on this machine: open the address in one");
    }
}
