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
}

/// Carries a block out, as a person with the kubeconfig of this cluster and a login at the hub.
fn run(way: Way, cluster: &Cluster, block: &str) {
    let begun = Instant::now();
    let mut command = fleet::command(bed(), "bash", &["-euo", "pipefail", "-c", block]);
    let output = command
        .current_dir(way.folder())
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("HUB_IMAGE", images::previous(images::HUB))
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let printed = printed.concat();
    eprintln!(
        "{:.0?} in cluster {} for:\n{block}{printed}",
        begun.elapsed(),
        cluster.name
    );
    assert!(output.status.success(), "{block}\n{printed}");
}

/// Changes the versions of the whole fleet; the hub is in the first cluster.
pub fn go(way: Way) {
    let (blocks, clusters) = (way.blocks(), bed().clusters());
    let hub = |block: &String| run(way, &clusters[0], block);
    let spokes = |block: &String| clusters.iter().for_each(|cluster| run(way, cluster, block));
    match (way, &blocks[..]) {
        (Way::Up, [save, new_hub, new_spoke]) => {
            hub(save);
            hub(new_hub);
            spokes(new_spoke);
        }
        (Way::Back, [old_spoke, restore, old_hub]) => {
            spokes(old_spoke);
            hub(restore);
            hub(old_hub);
        }
        (_, other) => panic!("docs/upgrade.md has {} blocks for {way:?}", other.len()),
    }
}
