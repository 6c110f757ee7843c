//! What deploy/crds ships is what the types say.

use std::path::Path;

#[test]
fn the_shipped_definitions_are_those_of_the_types() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    let mut bytes = 0;
    for (file, definition) in crds::schema::definitions() {
        let shipped = std::fs::read_to_string(dir.join(file)).unwrap();
        bytes += shipped.len();
        let shipped: serde_json::Value = serde_saphyr::from_str(&shipped).unwrap();
        assert_eq!(shipped, definition, "{file} is out of date: run `make gen`");
    }
    // A client-side apply keeps a copy of each in an annotation, which takes 256 KiB.
    assert!(bytes < 256 * 1024, "the definitions have grown to {bytes} bytes");
}

#[test]
fn the_shipped_rights_are_those_of_the_list() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spoke");
    for (file, objects) in crds::rights::manifests() {
        let shipped = std::fs::read_to_string(dir.join(file)).unwrap();
        let shipped: Vec<serde_json::Value> = serde_saphyr::from_multiple(&shipped).unwrap();
        let objects: Vec<serde_json::Value> = objects.into_iter().map(|(_, object)| object).collect();
        assert_eq!(shipped, objects, "{file} is out of date: run `make gen`");
    }
}

#[test]
fn no_field_is_nullable_so_that_null_means_the_default() {
    for (file, definition) in crds::schema::definitions() {
        assert!(!definition.to_string().contains("\"nullable\""), "{file}");
    }
}
