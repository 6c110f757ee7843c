//! The dashboard is embedded as it is when the hub is compiled: compiled again when `make ui` has built it anew.

fn main() {
    println!("cargo:rerun-if-changed=ui/dist");
}
