//! Addresses and names of a bed, all derived from its index, so that beds side by side never meet.

/// Beds that one machine can hold.
pub const BEDS: u8 = 16;
/// Clusters that one bed can hold.
pub const CLUSTERS: u8 = 5;

/// Address plan of a bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub index: u8,
}

impl Plan {
    /// Second octet of the bed's wide-area network; the seven after it are its pods and Services.
    fn base(self) -> u8 {
        64 + 8 * self.index
    }

    /// Bridge in the root namespace: the wide-area network that clusters and servers are plugged into.
    #[must_use]
    pub fn bridge(self) -> String {
        format!("fleet{}", self.index)
    }

    /// Host end of a veth pair; at most 15 characters.
    #[must_use]
    pub fn veth(self, node: &str) -> String {
        format!("f{}-{:.10}", self.index, node)
    }

    /// Network namespace of a cluster or a server.
    #[must_use]
    pub fn netns(self, node: &str) -> String {
        format!("fleet{}-{node}", self.index)
    }

    /// An address on the wide-area network.
    #[must_use]
    pub fn wan(self, host: u8) -> String {
        format!("10.{}.0.{host}", self.base())
    }

    /// Address of cluster n's node.
    #[must_use]
    pub fn node(self, cluster: u8) -> String {
        self.wan(11 + cluster)
    }

    /// Pods of cluster n.
    #[must_use]
    pub fn pods(self, cluster: u8) -> String {
        format!("10.{}.0.0/16", self.base() + 1 + cluster)
    }

    /// Services of cluster n.
    #[must_use]
    pub fn services(self, cluster: u8) -> String {
        format!("10.{}.{cluster}.0/24", self.base() + 7)
    }

    /// Address of Service `kubernetes` in cluster n.
    #[must_use]
    pub fn api_service(self, cluster: u8) -> String {
        format!("10.{}.{cluster}.1", self.base() + 7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_beds_share_a_network() {
        let mut seen = std::collections::HashSet::new();
        for index in 0..BEDS {
            let plan = Plan { index };
            assert!(seen.insert(plan.wan(0)));
            for cluster in 0..CLUSTERS {
                assert!(seen.insert(plan.pods(cluster)) && seen.insert(plan.services(cluster)));
                assert!(seen.insert(plan.node(cluster)));
            }
        }
    }

    #[test]
    fn interface_names_fit() {
        assert!(Plan { index: 15 }.veth("a-rather-long-name").len() <= 15);
    }
}
