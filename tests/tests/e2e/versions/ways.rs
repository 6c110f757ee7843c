//! The commands of docs/upgrade.md, out of docs/upgrade.md.

use std::path::PathBuf;
use std::time::Instant;

use tests::{Cluster, fleet, images};

use crate::support::{bed, previous, suite};

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

    /// Sections of the page whose blocks of commands are this way, with how many of them to pass over, and what each of the
    /// others is for, in their order. The store is put back in the same way whatever installed the hub.
    fn sections(self) -> (&'static [(&'static str, usize)], &'static [What]) {
        let up: &[What] = &[What::Hub, What::Operator];
        let back: &[What] = &[What::Operator, What::Hub, What::Hub];
        match (self, suite().by_charts) {
            (Way::Up, false) => (&[("## From version to version", 0)], up),
            (Way::Up, true) => (&[("### With Helm", 0)], up),
            (Way::Back, false) => (&[("### Back to the version before", 0)], back),
            (Way::Back, true) => (
                &[("### Back with Helm", 0), ("### Back to the version before", 2)],
                back,
            ),
        }
    }

    /// Where the manifests are: the version that is installed.
    fn folder(self) -> PathBuf {
        match self {
            Way::Up => bed().workspace.root.clone(),
            Way::Back => previous().unwrap(),
        }
    }

    /// The commands of this way, and what each block of them is for.
    fn blocks(self) -> (Vec<String>, &'static [What]) {
        let page = std::fs::read_to_string(bed().workspace.root.join("docs/upgrade.md")).unwrap();
        let (sections, wanted) = self.sections();
        let blocks: Vec<String> = sections
            .iter()
            .flat_map(|(heading, others)| blocks(&page, heading).into_iter().skip(*others))
            .collect();
        assert_eq!(
            blocks.len(),
            wanted.len(),
            "blocks of docs/upgrade.md for {self:?}"
        );
        (blocks, wanted)
    }

    /// What a person does for the whole fleet, in its order; the hub is in the first cluster.
    pub fn steps(self) -> Vec<Step> {
        let ((blocks, wanted), clusters) = (self.blocks(), bed().clusters());
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

/// The blocks of commands of a section.
fn blocks(page: &str, heading: &str) -> Vec<String> {
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap();
    let section = section.split("\n#").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    // They belong to the steps of a list.
    let line = |line: &str| format!("{}\n", line.strip_prefix("   ").unwrap_or(line));
    blocks
        .map(|block| block.split("```").next().unwrap().lines().map(line).collect())
        .collect()
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
