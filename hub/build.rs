//! The dashboard and the steps of the schema are embedded as they are when the hub is compiled: compiled again when `make ui` has
//! built it anew, and when a step is added.

fn main() {
    println!("cargo:rerun-if-changed=ui/dist");
    println!("cargo:rerun-if-changed=migrations");
}
