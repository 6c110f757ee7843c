//! Compiles the wire contract with protox, so that no protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["fleet/v1/link.proto", "fleet/v1/view.proto"];
    println!("cargo:rerun-if-changed=fleet");
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
