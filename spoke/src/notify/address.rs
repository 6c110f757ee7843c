//! Which addresses the operator calls for a resource. Who may write a resource chooses the URL, and the operator stands in a
//! better place in the network: the node's metadata service and the operator's own loopback are out of reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Failure;

/// Longest wait for a name server.
const DEADLINE: Duration = Duration::from_secs(5);
/// Metadata and agent addresses of clouds that are not link-local: Azure, Alibaba, and AWS by IPv6.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// What may be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Also the operator's own loopback.
    pub loopback: bool,
}

impl Addresses {
    /// Whether an address may be called. Private networks may: that is where most receivers are.
    #[must_use]
    pub fn allow(self, address: IpAddr) -> bool {
        let address = unwrapped(address);
        if address.is_loopback() {
            return self.loopback;
        }
        let local = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        !(local || address.is_unspecified() || address.is_multicast() || METADATA.contains(&address))
    }

    /// Addresses of a host that may be called. They are connected to as they are: a name that is looked up again could
    /// have another address by then.
    ///
    /// # Errors
    /// There is none.
    pub async fn resolve(self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let lookup = tokio::net::lookup_host((host, port));
        let found: Vec<SocketAddr> = match tokio::time::timeout(DEADLINE, lookup).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) => return Err(Failure::later("the name of the host could not be resolved")),
            Err(_) => return Err(Failure::later("the name server did not answer in time")),
        };
        let allowed: Vec<SocketAddr> = found.into_iter().filter(|at| self.allow(at.ip())).collect();
        if allowed.is_empty() {
            return Err(Failure::refused(
                "the host has no address that may be called: loopback, link-local and metadata addresses may not",
            ));
        }
        Ok(allowed)
    }
}

/// The IPv4 address in an IPv6 one that stands for it.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let [a, b, .., g, h] = v6.segments();
    let [g1, g2] = g.to_be_bytes();
    let [h1, h2] = h.to_be_bytes();
    let last = IpAddr::V4(Ipv4Addr::new(g1, g2, h1, h2));
    match v6.segments() {
        // Mapped, and the two prefixes of NAT64.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, ..] => last,
        // 6to4.
        [0x2002, ..] => {
            let [b1, b2] = b.to_be_bytes();
            let [c1, c2] = v6.segments()[2].to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(b1, b2, c1, c2))
        }
        // Compatible, ::1 and :: excepted.
        [0, 0, 0, 0, 0, 0, high, low] if a == 0 && (high, low) > (0, 1) => last,
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_node_or_the_operator_can_reach_is_not_called() {
        let default = Addresses::default();
        let allowed = |text: &str| default.allow(text.parse().unwrap());
        for refused in [
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
        ] {
            assert!(!allowed(refused), "{refused}");
        }
        for called in [
            "10.96.0.10",
            "192.168.1.1",
            "172.16.0.1",
            "9.9.9.9",
            "2001:db8::1",
            "fd00::1",
        ] {
            assert!(allowed(called), "{called}");
        }
        let loopback = Addresses { loopback: true };
        assert!(loopback.allow("127.0.0.1".parse().unwrap()) && loopback.allow("::1".parse().unwrap()));
        assert!(!loopback.allow("169.254.169.254".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_name_of_a_refused_address_and_a_literal_one_are_refused_alike() {
        for host in [
            "localhost",
            "127.0.0.1",
            "[::1]",
            "169.254.169.254",
            "2130706433",
            "0x7f.1",
        ] {
            let found = Addresses::default().resolve(host, 80).await;
            // Odd spellings are refused, or are no host at all.
            assert!(found.is_err(), "{host}: {found:?}");
        }
        let found = Addresses { loopback: true }.resolve("127.0.0.1", 80).await;
        assert_eq!(found.unwrap(), ["127.0.0.1:80".parse().unwrap()]);
    }
}
