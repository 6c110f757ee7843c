//! `testbed up|down|status|partition|heal|images|build|env`: whole clusters on this machine, without Docker.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to a person"
)]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tests::{Bed, Options, network, proxy, sink, tools};

#[derive(Parser)]
#[command(
    name = "testbed",
    version,
    about = "Whole Kubernetes clusters on this machine, without Docker"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the programs that the bed needs.
    Build {
        /// Those that only the tests of the charts need, and no others.
        #[arg(long)]
        charts: bool,
    },
    /// Makes a bed, or finds that it is up.
    Up {
        #[arg(long, default_value = "demo")]
        name: String,
        #[arg(long, value_delimiter = ',', default_value = "a,b")]
        clusters: Vec<String>,
        /// etcd syncs to disk as in production.
        #[arg(long)]
        etcd_fsync: bool,
        /// Build profile of the binaries in the images: dev or release.
        #[arg(long, default_value = "dev")]
        profile: String,
    },
    /// Removes a bed and all that it started.
    Down {
        #[arg(long, default_value = "demo")]
        name: String,
        /// Every bed of this machine.
        #[arg(long)]
        all: bool,
    },
    /// What runs. Exit code 1 if something that should run does not.
    Status,
    /// Cuts a cluster or a server off.
    Partition {
        node: String,
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Ends a partition.
    Heal {
        node: String,
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Makes the images from the present binaries and loads them.
    Images {
        #[arg(long, default_value = "demo")]
        name: String,
        #[arg(long, default_value = "dev")]
        profile: String,
    },
    /// A proxy that makes storage fail, as part of a bed. Rules and log by its socket.
    #[command(hide = true)]
    Proxy {
        #[arg(long)]
        listen: std::net::SocketAddr,
        #[arg(long)]
        upstream: std::net::SocketAddr,
        #[arg(long)]
        control: std::path::PathBuf,
    },
    /// A receiver of notifications, as part of a bed: writes the body of each request down as a line.
    #[command(hide = true)]
    Sink {
        #[arg(long)]
        listen: std::net::SocketAddr,
        #[arg(long)]
        file: std::path::PathBuf,
    },
    /// Prints the variables of a bed.
    Env {
        #[arg(long, default_value = "demo")]
        name: String,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Build { charts: true } => tools::Workspace::here().build_chart_tools()?,
        Command::Build { charts: false } => {
            tools::Workspace::here().build()?;
            tools::Workspace::here().build_mailpit()?;
        }
        Command::Up {
            name,
            clusters,
            etcd_fsync,
            profile,
        } => {
            Bed::up(&Options {
                name,
                clusters,
                fsync: etcd_fsync,
                profile,
            })?;
        }
        Command::Down { all: true, .. } => Bed::all().iter().for_each(Bed::down),
        Command::Down { name, .. } => match Bed::attach(&name) {
            Ok(bed) => bed.down(),
            Err(_) => println!("there is no test bed {name}"),
        },
        Command::Status => return Ok(status()),
        Command::Partition { node, name } => Bed::attach(&name)?.set_partition(&node, true)?,
        Command::Heal { node, name } => Bed::attach(&name)?.set_partition(&node, false)?,
        Command::Images { name, profile } => Bed::attach(&name)?.reload(&profile)?,
        Command::Proxy {
            listen,
            upstream,
            control,
        } => proxy::control::serve(listen, upstream, &control)?,
        Command::Sink { listen, file } => {
            let listener = TcpListener::bind(listen)?;
            let mut file = OpenOptions::new().create(true).append(true).open(file)?;
            sink::serve(&listener, |_, body| {
                let _ = writeln!(file, "{}", String::from_utf8_lossy(body));
            });
        }
        Command::Env { name } => {
            for (name, value) in Bed::attach(&name)?.environment() {
                println!("export {name}=\"{value}\"");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    println!(
        "{:<10} {:<8} {:<15} {:<10} DEAD",
        "BED", "NODE", "ADDRESS", "NETWORK"
    );
    for bed in Bed::all() {
        let dead = bed.dead();
        if !dead.is_empty() {
            code = ExitCode::FAILURE;
        }
        for node in bed.nodes() {
            let address = match node.as_str() {
                "s3" => bed.plan().wan(100),
                "rest" => bed.plan().wan(110),
                cluster => bed.cluster(cluster).map(|c| c.node_ip()).unwrap_or_default(),
            };
            let link = if network::is_linked(bed.plan(), &node) {
                "connected"
            } else {
                "cut off"
            };
            // "a/kubelet" of a cluster, "rest" and "rest-proxy" of a server.
            let of = |d: &&String| {
                d.strip_prefix(&node)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '-']))
            };
            let of_node: Vec<_> = dead.iter().filter(of).cloned().collect();
            println!(
                "{:<10} {node:<8} {address:<15} {link:<10} {}",
                bed.name(),
                of_node.join(" ")
            );
        }
    }
    code
}
