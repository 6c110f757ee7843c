//! The dashboard's half of the wire contract: `ui/src/wire/contract.ts` is made from the descriptors of all proto files.
//! `FLEET_WRITE_DOCS=1` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

/// What a browser may call. Backups of the hub and the link are not among it.
const SERVICES: [&str; 4] = ["FleetView", "FleetControl", "FleetAdmin", "FleetClusters"];
const TIMESTAMP: &str = ".google.protobuf.Timestamp";

struct Contract {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
    services: Vec<ServiceDescriptorProto>,
}

impl Contract {
    fn read() -> Contract {
        let set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
        let mut contract = Contract {
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
            services: Vec::new(),
        };
        for file in set.file.into_iter().filter(|file| file.package() == "fleet.v1") {
            for message in file.message_type {
                contract.messages.insert(message.name().to_owned(), message);
            }
            for list in file.enum_type {
                contract.enums.insert(list.name().to_owned(), list);
            }
            contract.services.extend(file.service);
        }
        contract
    }

    fn services(&self) -> impl Iterator<Item = &ServiceDescriptorProto> {
        let named = |name: &&str| self.services.iter().find(|service| service.name() == *name);
        SERVICES.iter().filter_map(named)
    }

    /// Messages and enums that the services need.
    fn needed(&self) -> BTreeSet<String> {
        let mut needed = BTreeSet::new();
        let mut open: Vec<String> = Vec::new();
        for service in self.services() {
            for method in &service.method {
                open.extend([method.input_type(), method.output_type()].map(last));
            }
        }
        while let Some(name) = open.pop() {
            if !needed.insert(name.clone()) {
                continue;
            }
            let Some(message) = self.messages.get(&name) else {
                continue;
            };
            let fields = message.field.iter();
            let types = fields.filter(|field| field.has_type() && field.type_name() != TIMESTAMP);
            open.extend(
                types
                    .filter(|field| map_value(message, field).is_none())
                    .map(|field| last(field.type_name())),
            );
        }
        needed
    }
}

trait Typed {
    fn has_type(&self) -> bool;
}

impl Typed for FieldDescriptorProto {
    fn has_type(&self) -> bool {
        matches!(self.r#type(), Type::Message | Type::Enum)
    }
}

fn last(name: &str) -> String {
    name.rsplit('.').next().unwrap_or_default().to_owned()
}

/// "backups_by_state" as "backupsByState".
fn camel(name: &str) -> String {
    let mut text = String::new();
    let mut upper = false;
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c if std::mem::take(&mut upper) => text.extend(c.to_uppercase()),
            c => text.push(c),
        }
    }
    text
}

/// "BACKUP_RESULT_PARTIALLY_FAILED" of BackupResult as "partially-failed".
fn value(list: &EnumDescriptorProto, name: &str) -> String {
    let mut prefix = String::new();
    for c in list.name().chars() {
        if c.is_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.extend(c.to_uppercase());
    }
    let name = name.strip_prefix(&format!("{prefix}_")).unwrap_or(name);
    name.to_lowercase().replace('_', "-")
}

/// Value field of a map.
fn map_value<'a>(
    message: &'a DescriptorProto,
    field: &FieldDescriptorProto,
) -> Option<&'a FieldDescriptorProto> {
    let entry = message.nested_type.iter().find(|nested| {
        field
            .type_name()
            .ends_with(&format!(".{}.{}", message.name(), nested.name()))
    })?;
    entry.field.iter().find(|field| field.number() == 2)
}

/// Type in TypeScript, and its letter or name in the table of fields.
fn kind(field: &FieldDescriptorProto) -> (String, String) {
    let of = |kind: &str, letter: &str| (kind.to_owned(), letter.to_owned());
    match field.r#type() {
        Type::String => of("string", "s"),
        Type::Bool => of("boolean", "b"),
        Type::Bytes => of("Uint8Array", "y"),
        Type::Uint32 | Type::Uint64 | Type::Int32 | Type::Int64 => of("number", "n"),
        Type::Message if field.type_name() == TIMESTAMP => of("number", "t"),
        Type::Message | Type::Enum => (last(field.type_name()), last(field.type_name())),
        other => panic!("{}: the dashboard has no {other:?}", field.name()),
    }
}

/// One field: its line in the interface, and its entry in the table.
fn field(message: &DescriptorProto, field: &FieldDescriptorProto) -> (String, String) {
    let name = camel(field.name());
    if let Some(value) = map_value(message, field) {
        let (ts, letter) = kind(value);
        return (
            format!("{name}: Record<string, {ts}>"),
            format!("{}{name}%{letter}", field.number()),
        );
    }
    let (ts, letter) = kind(field);
    let number = field.number();
    let bare = field.oneof_index.is_none() && !matches!(field.r#type(), Type::Message);
    match field.label() {
        Label::Repeated => (format!("{name}: {ts}[]"), format!("{number}{name}*{letter}")),
        _ if bare => (format!("{name}: {ts}"), format!("{number}{name}:{letter}")),
        _ => (format!("{name}?: {ts}"), format!("{number}{name}?{letter}")),
    }
}

fn made() -> String {
    let contract = Contract::read();
    let needed = contract.needed();
    let mut text = String::from(
        "// Made from proto/ by hub/tests/dashboard_contract.rs. Do not edit.\n\
         // Times are milliseconds since 1970. What is not there is undefined: messages, times, optional and oneof fields.\n\
         import { method, stream } from './grpc'\n",
    );
    let mut tables = String::new();
    for (name, list) in contract.enums.iter().filter(|(name, _)| needed.contains(*name)) {
        let values: Vec<String> = list.value.iter().map(|v| value(list, v.name())).collect();
        let _ = writeln!(text, "\nexport type {name} = '{}'", values.join("' | '"));
        let numbered: Vec<String> = list
            .value
            .iter()
            .map(|v| format!("{}{}", v.number(), value(list, v.name())))
            .collect();
        let _ = writeln!(tables, "  {name}: '={}',", numbered.join(" "));
    }
    for (name, message) in contract
        .messages
        .iter()
        .filter(|(name, _)| needed.contains(*name))
    {
        let _ = writeln!(text, "\nexport interface {name} {{");
        let mut entries = Vec::new();
        for of in &message.field {
            let (line, entry) = field(message, of);
            let _ = writeln!(text, "  {line}");
            entries.push(entry);
        }
        text.push_str("}\n");
        let _ = writeln!(tables, "  {name}: '{}',", entries.join(" "));
    }
    let _ = writeln!(
        text,
        "\n/** Fields of messages as \"<number><name><sort><kind>\": `:` always there, `?` perhaps, `*` a list, `%` a map. */\n\
         export const tables: Record<string, string> = {{\n{tables}}}"
    );
    for service in contract.services() {
        let _ = writeln!(text, "\nexport const {} = {{", service.name());
        for method in &service.method {
            let (input, output) = (last(method.input_type()), last(method.output_type()));
            let mut of = method.name().to_owned();
            of[..1].make_ascii_lowercase();
            let sort = if method.server_streaming() {
                "stream"
            } else {
                "method"
            };
            let path = format!("{}/{}", service.name(), method.name());
            let _ = writeln!(
                text,
                "  {of}: {sort}<{input}, {output}>('{path}', '{input}', '{output}'),"
            );
        }
        text.push_str("}\n");
    }
    text
}

#[test]
fn the_dashboard_has_the_contract_of_the_hub() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ui/src/wire/contract.ts");
    let made = made();
    if std::env::var_os("FLEET_WRITE_DOCS").is_some() {
        std::fs::write(path, &made).unwrap();
        return;
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == made,
        "hub/ui/src/wire/contract.ts is out of date: make gen"
    );
}
