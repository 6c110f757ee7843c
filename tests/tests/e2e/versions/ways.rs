//! The commands of docs/upgrade.md, out of docs/upgrade.md.

use std::path::PathBuf;
use std::time::Instant;

use tests::{Cluster, fleet, images};

use crate::support::{bed, previous};

/// Which way the versions change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Back,
}

/// What a block of commands replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Hub,
    Operator,
}

/// A block of commands for one cluster.
pub struct Step {
    pub what: What,
    pub cluster: Cluster,
    way: Way,
    block: String,
}

impl Way {
    pub const fn name(self) -> &'static str {
        match self {
            Way::Up => "up",
            Way::Back => "back",
        }
    }

    const fn heading(self) -> &'static str {
        match self {
            Way::Up => "\n## From version to version\n",
            Way::Back => "\n### Back to the version before\n",
        }
    }

    /// What the blocks of the section are for, in their order.
    const fn blocks_for(self) -> &'static [What] {
        match self {
            Way::Up => &[What::Hub, What::Operator],
            Way::Back => &[What::Operator, What::Hub, What::Hub],
        }
    }

    /// Where the manifests are: the version that is installed.
    fn folder(self) -> PathBuf {
        match self {
            Way::Up => bed().workspace.root.clone(),
            Way::Back => previous().unwrap(),
        }
    }

    /// The blocks of commands of the section.
    fn blocks(self) -> Vec<String> {
        let page = std::fs::read_to_string(bed().workspace.root.join("docs/upgrade.md")).unwrap();
        let (_, section) = page.split_once(self.heading()).unwrap();
        let section = section.split("\n#").next().unwrap();
        let blocks = section.split("```sh\n").skip(1);
        // They belong to the steps of a list.
        let line = |line: &str| format!("{}\n", line.strip_prefix("   ").unwrap_or(line));
        blocks
            .map(|block| block.split("```").next().unwrap().lines().map(line).collect())
            .collect()
    }

    /// What a person does for the whole fleet, in its order; the hub is in the first cluster.
    pub fn steps(self) -> Vec<Step> {
        let (blocks, clusters) = (self.blocks(), bed().clusters());
        let wanted = self.blocks_for();
        assert_eq!(
            blocks.len(),
            wanted.len(),
            "blocks of docs/upgrade.md for {self:?}"
        );
        let mut steps = Vec::new();
        for (what, block) in wanted.iter().zip(blocks) {
            let clusters = match what {
                What::Hub => &clusters[..1],
                What::Operator => &clusters[..],
            };
            steps.extend(clusters.iter().map(|cluster| Step {
                what: *what,
                cluster: cluster.clone(),
                way: self,
                block: block.clone(),
            }));
        }
        steps
    }
}

impl Step {
    /// Carries the commands out, as a person with the kubeconfig of this cluster and a login at the hub. Returns what was
    /// printed.
    pub fn run(&self) -> String {
        let begun = Instant::now();
        let mut command = fleet::command(bed(), "bash", &["-euo", "pipefail", "-c", &self.block]);
        let output = command
            .current_dir(self.way.folder())
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("HUB_IMAGE", images::previous(images::HUB))
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let (printed, name, block) = (printed.concat(), &self.cluster.name, &self.block);
        eprintln!("{:.0?} in cluster {name} for:\n{block}{printed}", begun.elapsed());
        assert!(output.status.success(), "{block}\n{printed}");
        printed
    }
}
