//! Compiles the wire contract with protox, so that no protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "fleet/v1/activity.proto",
        "fleet/v1/admin.proto",
        "fleet/v1/clusters.proto",
        "fleet/v1/collect.proto",
        "fleet/v1/enrol.proto",
        "fleet/v1/command.proto",
        "fleet/v1/control.proto",
        "fleet/v1/copy.proto",
        "fleet/v1/coverage.proto",
        "fleet/v1/freshness.proto",
        "fleet/v1/health.proto",
        "fleet/v1/hub.proto",
        "fleet/v1/link.proto",
        "fleet/v1/lease.proto",
        "fleet/v1/policy.proto",
        "fleet/v1/restore.proto",
        "fleet/v1/retention.proto",
        "fleet/v1/snapshot.proto",
        "fleet/v1/state.proto",
        "fleet/v1/storage.proto",
        "fleet/v1/view.proto",
    ];
    println!("cargo:rerun-if-changed=fleet");
    let descriptors = protox::compile(files, ["."])?;
    let folder = std::env::var("OUT_DIR")?;
    let encoded = prost::Message::encode_to_vec(&descriptors);
    std::fs::write(std::path::Path::new(&folder).join("descriptors.bin"), encoded)?;
    // Written for pods and stores to read, so JSON as well.
    let mut builder = tonic_prost_build::configure().codec_path("crate::codec::Sparing");
    for message in [
        "RetentionPolicySpec",
        "RetentionRule",
        "RetentionRun",
        "OperationOutcome",
        "Baseline",
        "ClusterUid",
        "PolicyFault",
        "UnlockRun",
        "CheckRun",
        "KeyRun",
    ] {
        let derive =
            "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default, rename_all = \"camelCase\")]";
        builder = builder.type_attribute(format!("fleet.v1.{message}"), derive);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
