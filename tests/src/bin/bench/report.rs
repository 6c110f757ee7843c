//! What was measured, against its goal, as a page of the documentation.

use std::fmt::Write as _;
use std::path::PathBuf;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Shown for comparison alone.
    Open,
    AtMost(f64),
    Below(f64),
}

impl Goal {
    /// `None` where nothing was asked for. What could not be measured has not met its goal.
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Goal::Open => None,
            Goal::AtMost(limit) => Some(value <= limit),
            Goal::Below(limit) => Some(value < limit),
        }
    }

    fn text(self) -> String {
        match self {
            Goal::Open => "-".to_owned(),
            Goal::AtMost(limit) => format!("≤ {limit}"),
            Goal::Below(limit) => format!("< {limit}"),
        }
    }
}

/// One line of the result.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    pub goal: Goal,
}

impl Figure {
    fn verdict(&self) -> &'static str {
        match self.goal.is_met(self.value) {
            None => "",
            Some(true) => "met",
            Some(false) => "**missed**",
        }
    }

    fn number(&self) -> String {
        if self.value.is_finite() {
            // Nothing is not less than nothing.
            let value = (self.value * 100.0).round() / 100.0 + 0.0;
            format!("{value:.2} {}", self.unit)
        } else {
            "not measured".to_owned()
        }
    }
}

/// A part of the run, as far as it has come.
struct Section {
    name: &'static str,
    /// Processes that wanted a core, as the kernel averages them over a minute, when the part began.
    load: f64,
    figures: Vec<Figure>,
    state: State,
}

enum State {
    Running,
    Done,
    Failed(String),
}

/// All parts that have begun. Written to its page after each figure, so that a run that is interrupted is not lost.
pub struct Report {
    page: Option<PathBuf>,
    /// Titles of all parts, in the order of the page.
    parts: Vec<&'static str>,
    /// The page as an earlier run has left it: its sections stay until their part is measured anew.
    earlier: String,
    sections: Vec<Section>,
}

impl Report {
    /// `page`: where it is written, or nowhere. `parts`: titles of all parts that there are.
    ///
    /// # Errors
    /// The page is there and cannot be read.
    pub fn new(page: Option<PathBuf>, parts: Vec<&'static str>) -> anyhow::Result<Report> {
        let earlier = match &page {
            Some(page) if page.exists() => std::fs::read_to_string(page)?,
            _ => String::new(),
        };
        Ok(Report {
            page,
            parts,
            earlier,
            sections: Vec::new(),
        })
    }

    /// The section of a part as an earlier run has left it, without its title.
    fn earlier(&self, part: &str) -> Option<&str> {
        let (_, rest) = self.earlier.split_once(&format!("\n## {part}\n"))?;
        Some(rest.split("\n## ").next().unwrap_or(rest))
    }

    pub fn begin(&mut self, name: &'static str) {
        self.sections.push(Section {
            name,
            load: load(),
            figures: Vec::new(),
            state: State::Running,
        });
    }

    pub fn add(&mut self, figures: impl IntoIterator<Item = Figure>) -> anyhow::Result<()> {
        for figure in figures {
            println!(
                "figure {} = {} (goal {}) {}",
                figure.name,
                figure.number(),
                figure.goal.text(),
                figure.verdict()
            );
            if let Some(section) = self.sections.last_mut() {
                section.figures.push(figure);
            }
        }
        self.write()
    }

    pub fn end(&mut self, result: &anyhow::Result<()>) -> anyhow::Result<()> {
        if let Some(section) = self.sections.last_mut() {
            section.state = match result {
                Ok(()) => State::Done,
                Err(error) => State::Failed(first_line(&format!("{error:#}"))),
            };
        }
        self.write()
    }

    /// Goals that were missed, and parts that failed.
    pub fn missed(&self) -> Vec<String> {
        let figures = self.sections.iter().flat_map(|s| &s.figures);
        let missed = figures.filter(|f| f.goal.is_met(f.value) == Some(false));
        let failed = self
            .sections
            .iter()
            .filter(|s| matches!(s.state, State::Failed(_)));
        missed
            .map(|f| f.name.to_owned())
            .chain(failed.map(|s| format!("{} (failed)", s.name)))
            .collect()
    }

    pub fn failed(&self) -> bool {
        let failed = |s: &Section| matches!(s.state, State::Failed(_));
        self.sections.iter().any(failed)
    }

    fn write(&self) -> anyhow::Result<()> {
        let Some(page) = &self.page else { return Ok(()) };
        std::fs::write(page, self.text()?)?;
        Ok(())
    }

    fn text(&self) -> anyhow::Result<String> {
        let mut text = head()?;
        let (mut sections, mut missed, mut open) = (String::new(), self.missed(), Vec::new());
        for part in &self.parts {
            let section = match self.sections.iter().find(|section| section.name == *part) {
                Some(section) => section.text(),
                None => match self.earlier(part) {
                    Some(earlier) => {
                        missed.extend(missed_in(earlier));
                        earlier.to_owned()
                    }
                    None => {
                        open.push(*part);
                        continue;
                    }
                },
            };
            let _ = write!(sections, "\n## {part}\n{section}");
        }
        if missed.is_empty() {
            text.push_str("No goal was missed.\n");
        } else {
            let _ = writeln!(text, "**Missed: {}.**", missed.join(", "));
        }
        if !open.is_empty() {
            let _ = writeln!(text, "\nNot measured: {}.", open.join(", "));
        }
        text.push_str(&sections);
        text.push_str("\n## What the figures are\n\n");
        text.push_str(MEANINGS);
        Ok(text)
    }
}

impl Section {
    fn text(&self) -> String {
        let day = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let mut text = format!("\n{day}; load average when it began: {:.1}.\n\n", self.load);
        match &self.state {
            State::Running => text.push_str("Interrupted: what follows in this part was not measured.\n\n"),
            State::Failed(error) => {
                let _ = writeln!(text, "**Failed**, so the rest of it was not measured: {error}\n");
            }
            State::Done => {}
        }
        text.push_str("| figure | value | goal | |\n|---|---:|---:|---|\n");
        for figure in &self.figures {
            let (value, goal, verdict) = (figure.number(), figure.goal.text(), figure.verdict());
            let _ = writeln!(text, "| `{}` | {value} | {goal} | {verdict} |", figure.name);
        }
        text
    }
}

/// Names of the figures in a section of the page that miss their goal.
fn missed_in(section: &str) -> impl Iterator<Item = String> {
    let missed = section.lines().filter(|line| line.contains("**missed**"));
    missed.filter_map(|line| line.split('`').nth(1).map(str::to_owned))
}

fn head() -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory: f64 = memory
        .lines()
        .find_map(|line| {
            let total = line.strip_prefix("MemTotal:")?;
            total.trim().trim_end_matches(" kB").parse().ok()
        })
        .unwrap_or(f64::NAN);
    Ok(format!(
        "# Benchmarks\n\nWritten by `make bench`; each section holds the figures of one run on one machine. Ratios compare two \
         things measured in the same run. A load average above the number of cores when a part begins means that others use the machine, and \
         that times and ratios say little.\n\n\
         - machine: {cores} cores, {:.0} GiB\n- Kubernetes {}, one API server, etcd with fsync, on the same cores as \
         everything else\n- restic {}\n\n",
        memory / 1024.0 / 1024.0,
        ::tests::tools::KUBERNETES,
        ::tests::tools::RESTIC,
    ))
}

/// Load of the machine over the last minute.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|n| n.parse().ok());
    first.unwrap_or(f64::NAN)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

const MEANINGS: &str = "\
- `create_1000_backups_ratio_to_bare_client`: from the first create until all 1,000 ResticBackups are Ready with their \
CronJobs, by a bare client's time for the same writes (create, ServiceAccount, CronJob, status; 16 workers).
- `manager_memory_peak_…`: the highest resident memory of the process, as the kernel counts it (VmHWM); `…_idle_…`: \
resident memory at the end of the idle time; `…_of_program_file_…`: that part of it that is pages of the binary, which \
the kernel can drop and read again.
- `idle_api_requests_…` and `restart_writes_…`: by the API server's audit log; watches and the leader's lease apart.
- `restart_settle_time_…`: from the start of the process until every actor has taken its turn; with 10,000 backups until \
the last turn after which there is none for five seconds, looked at twice a second.
- `create_and_run_10000_backups_ratio_to_bare_client`: as above with 10,000, and then one finished Job with its pod for \
each, whose termination message is as the entrypoint writes it, until every status has the result and every pod is \
deleted. The bare client makes the same Jobs and pods, writes the same statuses and deletes the pods. No kubelet takes \
part. Both begin with a new cluster.
- `idle_cpu_10000_backups`: user and system time of the process by the time passed.
- `…_renewal_lateness_…`: the longest time between two renewals, less the interval at which they are due: of the leader's \
Lease, and of the maintenance lease as the pod of a retention run sees it, whose storage does not answer meanwhile.
- `rewrite_10000_cron_jobs`: a change of the repository that is in the pod template of all, until all CronJobs are written.
- Why memory is missed: docs/sizing.md has a heap profile. Four channels and two tasks for each actor are a third of it.
- `backup_wall_time_ratio_to_restic_alone`: median of seven turns each, 300 MB in 2,000 files; the start of a pod comes on \
top.
- `lease_grant_…`: from the question to the grant over mTLS on the loopback, 1,000 times, each durable in SQLite with fsync \
before it is answered. `disk_sync_…`: 4 KiB written and synced on the same disk, for comparison.
- `reconnect_1000_objects_unchanged`: bytes of all messages of both directions, without TLS and HTTP/2, from the Hello to \
the first heartbeat when the spoke's digest agrees with what the hub holds; `connect_1000_objects_first`: the same for a \
cluster that the hub does not know.
- `fleet_…`: a hub with simulated spokes of 100 resources, each with a connection, a certificate and a handshake of its own, on the same cores (`tests/src/load`); one viewer on one connection asks one thing after the other, and its times hold its own decoding. `…_cold`: with dial and handshake. `…_connect_stale_backups`: the most backups that were called stale while all clusters sent what they have for the first time, though theirs had a session. `…_change_on_screen`: from the send of one changed resource until the event of a watch of all backups is decoded. `…_viewer_memory`: what a watch of all backups adds to the hub's resident memory. `…_spoke_answer_…`: a spoke's question that is answered out of memory, while a viewer asks for verdicts and pages without a pause. `…_restart_…`: from the start of the process until the first verdict is answered, until the last spoke is back and agrees, and the bytes that spokes send for it, handshakes included.
- `retention_run_ratio_to_ten_dry_runs`: median of three runs of `fleet-spoke maintenance retention`, from its start to its \
result with 10 policies over 10,240 snapshots and without prune, by ten calls of `restic forget --dry-run` one after the \
other; the run lists, decides, forgets and looks again.
";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_has_not_met_its_goal() {
        assert_eq!(Goal::AtMost(1.0).is_met(1.0), Some(true));
        assert_eq!(Goal::Below(1.0).is_met(1.0), Some(false));
        assert_eq!(Goal::AtMost(1.0).is_met(f64::NAN), Some(false));
        assert_eq!(Goal::Open.is_met(5.0), None);
    }

    #[test]
    fn the_page_names_what_was_missed_and_what_is_open() {
        let mut report = Report::new(None, vec!["one", "two", "three"]).unwrap();
        let before = "# Benchmarks\n\n## two\n\n2026-01-02\n\n| `late` | 3.00 s | ≤ 2 | **missed** |\n\n## one\n\n2026-01-01\n";
        report.earlier = before.to_owned();
        report.begin("one");
        let figure = |name, value| Figure {
            name,
            value,
            unit: "s",
            goal: Goal::AtMost(2.0),
        };
        report.add([figure("slow", 3.0), figure("quick", 1.0)]).unwrap();
        let text = report.text().unwrap();
        assert!(
            text.contains("**Missed: slow, late.**") && text.contains("Not measured: three."),
            "{text}"
        );
        assert!(text.contains("| `slow` | 3.00 s | ≤ 2 | **missed** |"), "{text}");
        assert!(
            text.contains("## two\n\n2026-01-02") && !text.contains("2026-01-01"),
            "{text}"
        );
        report.end(&Err(anyhow::anyhow!("no cluster"))).unwrap();
        assert!(report.failed() && report.missed() == ["slow", "one (failed)"]);
    }
}
