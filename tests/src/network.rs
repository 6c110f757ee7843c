//! One network namespace for each cluster and each server, plugged into a bridge: a partition is a link that is down.

use anyhow::Context as _;

use crate::address::Plan;
use crate::process::{attempt, run};

/// The bridge of a bed.
pub fn create_bridge(plan: Plan) -> anyhow::Result<()> {
    let bridge = plan.bridge();
    run("ip", &["link", "add", &bridge, "type", "bridge"])
        .context("cannot make a network bridge; are you root?")?;
    run(
        "ip",
        &["addr", "add", &format!("{}/24", plan.wan(1)), "dev", &bridge],
    )?;
    run("ip", &["link", "set", &bridge, "up"])?;
    run("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?;
    Ok(())
}

/// A namespace with addresses on the bridge.
pub fn create_node(plan: Plan, node: &str, addresses: &[String]) -> anyhow::Result<()> {
    let (netns, veth) = (plan.netns(node), plan.veth(node));
    run("ip", &["netns", "add", &netns])?;
    run(
        "ip",
        &[
            "link", "add", &veth, "type", "veth", "peer", "name", "eth0", "netns", &netns,
        ],
    )?;
    run("ip", &["link", "set", &veth, "master", &plan.bridge(), "up"])?;
    run("ip", &["-n", &netns, "link", "set", "lo", "up"])?;
    for address in addresses {
        run(
            "ip",
            &[
                "-n",
                &netns,
                "addr",
                "add",
                &format!("{address}/24"),
                "dev",
                "eth0",
            ],
        )?;
    }
    run("ip", &["-n", &netns, "link", "set", "eth0", "up"])?;
    run(
        "ip",
        &["-n", &netns, "route", "add", "default", "via", &plan.wan(1)],
    )?;
    run(
        "nsenter",
        &[
            &format!("--net=/var/run/netns/{netns}"),
            "sysctl",
            "-qw",
            "net.ipv4.ip_forward=1",
        ],
    )?;
    Ok(())
}

/// The way to a cluster's pods.
pub fn route(cidr: &str, via: &str) -> anyhow::Result<()> {
    run("ip", &["route", "replace", cidr, "via", via]).map(drop)
}

/// Cuts a node off, or plugs it in again.
pub fn set_link(plan: Plan, node: &str, up: bool) -> anyhow::Result<()> {
    run(
        "ip",
        &["link", "set", &plan.veth(node), if up { "up" } else { "down" }],
    )
    .map(drop)
}

/// Whether a node is plugged in.
#[must_use]
pub fn is_linked(plan: Plan, node: &str) -> bool {
    run("ip", &["-o", "link", "show", &plan.veth(node)])
        .is_ok_and(|line| line.split('>').next().is_some_and(|f| f.contains(",UP")))
}

/// Removes what is there of a bed's network, whoever made it.
pub fn remove(plan: Plan) {
    let namespaces = run("ip", &["netns", "list"]).unwrap_or_default();
    let prefix = plan.netns("");
    for line in namespaces.lines() {
        if let Some(name) = line.split_whitespace().next().filter(|n| n.starts_with(&prefix)) {
            attempt(
                "ip",
                &[
                    "link",
                    "del",
                    &plan.veth(name.strip_prefix(&prefix).unwrap_or_default()),
                ],
            );
            attempt("ip", &["netns", "del", name]);
        }
    }
    attempt("ip", &["link", "del", &plan.bridge()]);
}
