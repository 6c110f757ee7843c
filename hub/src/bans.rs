//! Which clusters may not connect. Pure.

use std::collections::{BTreeMap, BTreeSet};

use proto::certificate::Facts;

use crate::Millis;

/// A ban, lifted or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ban {
    pub cluster: String,
    pub since: Millis,
    pub who: String,
    pub reason: String,
    /// Since when the cluster may connect again.
    pub lifted: Option<Millis>,
    /// Certificates that were issued before it stay refused, also when this or a later ban is lifted. It only rises.
    pub refused_before: Option<Millis>,
}

impl Ban {
    /// What the cluster reads, and anyone who asks about it.
    #[must_use]
    pub fn text(&self) -> String {
        let Ban {
            cluster, who, reason, ..
        } = self;
        let reason = if reason.is_empty() {
            "no reason was given"
        } else {
            reason
        };
        format!("cluster {cluster} was banned by {who} ({reason}); `fleet clusters unban {cluster}` lifts it")
    }
}

/// All bans.
#[derive(Debug, Default)]
pub struct Bans {
    bans: BTreeMap<String, Ban>,
    /// Serials that were issued after a ban was lifted on condition of joining again, by cluster.
    rejoined: BTreeMap<String, BTreeSet<String>>,
}

impl Bans {
    /// The ban of a cluster that may not connect now.
    #[must_use]
    pub fn present(&self, cluster: &str) -> Option<&Ban> {
        self.bans.get(cluster).filter(|ban| ban.lifted.is_none())
    }

    /// All bans that are not lifted.
    pub fn all(&self) -> impl Iterator<Item = &Ban> {
        self.bans.values().filter(|ban| ban.lifted.is_none())
    }

    /// Keeps a ban in place of that of before. What that one refuses for ever stays refused.
    pub fn put(&mut self, mut ban: Ban) {
        let before = self.bans.get(&ban.cluster).and_then(|ban| ban.refused_before);
        ban.refused_before = ban.refused_before.max(before);
        if ban.refused_before != before {
            self.rejoined.remove(&ban.cluster);
        }
        self.bans.insert(ban.cluster.clone(), ban);
    }

    /// A certificate was issued at a time.
    pub fn issued(&mut self, cluster: &str, serial: &str, at: Millis) {
        let before = self.bans.get(cluster).and_then(|ban| ban.refused_before);
        if before.is_some_and(|before| at >= before) {
            let serials = self.rejoined.entry(cluster.to_owned()).or_default();
            serials.insert(serial.to_owned());
        }
    }

    /// Why a cluster with a certificate is refused, if it is.
    #[must_use]
    pub fn refuses(&self, cluster: &str, certificate: &Facts) -> Option<String> {
        let ban = self.bans.get(cluster)?;
        if ban.lifted.is_none() {
            return Some(ban.text());
        }
        let before = ban.refused_before?;
        let again = self
            .rejoined
            .get(cluster)
            .is_some_and(|s| s.contains(&certificate.serial));
        // Those of the hub's own authority are known by serial: their validity begins before they are issued.
        (!again && certificate.begins < before).then(|| {
            format!(
                "certificate {} of cluster {cluster} was issued before the cluster was banned, and stays refused: join again \
                 with `fleet clusters join {cluster}`",
                certificate.serial
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(serial: &str, begins: Millis) -> Facts {
        Facts {
            serial: serial.to_owned(),
            begins,
            expires: 1_000,
            key: [0; 32],
        }
    }

    fn ban(lifted: Option<Millis>, rejoin: bool) -> Ban {
        Ban {
            cluster: "a".to_owned(),
            since: 100,
            who: "ann".to_owned(),
            reason: "stolen".to_owned(),
            lifted,
            refused_before: lifted.filter(|_| rejoin),
        }
    }

    #[test]
    fn a_ban_is_of_a_name_until_it_is_lifted() {
        let mut bans = Bans::default();
        bans.put(ban(None, false));
        let text = bans.refuses("a", &certificate("1", 500)).unwrap();
        assert!(
            text.contains("ann") && text.contains("stolen") && text.contains("unban a"),
            "{text}"
        );
        assert_eq!(bans.refuses("b", &certificate("1", 0)), None);
        bans.put(ban(Some(200), false));
        assert_eq!(
            bans.refuses("a", &certificate("1", 0)),
            None,
            "the certificate of before is good again"
        );
        assert!(bans.present("a").is_none());
    }

    #[test]
    fn a_stolen_key_stays_refused_when_the_cluster_joins_again() {
        let mut bans = Bans::default();
        bans.put(ban(Some(200), true));
        // Backdated, so its validity begins before the ban was lifted.
        bans.issued("a", "new", 201);
        bans.issued("a", "late", 199);
        assert_eq!(bans.refuses("a", &certificate("new", 150)), None);
        for stolen in ["old", "late"] {
            assert!(
                bans.refuses("a", &certificate(stolen, 150))
                    .unwrap()
                    .contains("join again")
            );
        }
        assert_eq!(bans.refuses("a", &certificate("of-a-given-authority", 200)), None);
        bans.put(ban(None, false));
        assert!(bans.refuses("a", &certificate("new", 150)).is_some());
    }

    #[test]
    fn a_second_ban_makes_no_stolen_key_good_again() {
        let mut bans = Bans::default();
        bans.put(ban(Some(200), true));
        bans.issued("a", "new", 201);
        bans.put(ban(None, false));
        bans.put(ban(Some(400), false));
        assert!(bans.refuses("a", &certificate("stolen", 150)).is_some());
        assert_eq!(bans.refuses("a", &certificate("new", 150)), None);
        bans.put(ban(None, false));
        bans.put(ban(Some(600), true));
        assert!(bans.refuses("a", &certificate("new", 150)).is_some());
    }
}
