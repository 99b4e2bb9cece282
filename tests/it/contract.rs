//! Names and numbers of the contract: clients are written against them, so a change that breaks one shows up here, also
//! where `buf breaking` is not at hand. Additions go into contract.txt; nothing else may change.

use std::fmt::Write;

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet, field_descriptor_proto::Label,
};
use rowgate::rpc::pb;

const CONTRACT: &str = include_str!("contract.txt");

/// One line for each field, value and method.
fn contract() -> String {
    let files = FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap().file;
    let mut text = String::new();
    for file in files.iter().filter(|file| file.package() == "rowgate.v1") {
        for service in &file.service {
            for method in &service.method {
                let stream = ["", "stream "][usize::from(method.server_streaming())];
                writeln!(
                    text,
                    "rpc {}.{}({}) {stream}{}",
                    service.name(),
                    method.name(),
                    method.input_type(),
                    method.output_type()
                )
                .unwrap();
            }
        }
        for message in &file.message_type {
            add_message(&mut text, message, message.name());
        }
        for of in &file.enum_type {
            add_enum(&mut text, of);
        }
    }
    text
}

fn add_message(text: &mut String, message: &DescriptorProto, name: &str) {
    for field in &message.field {
        let kind = match field.type_name() {
            "" => format!("{:?}", field.r#type()),
            name => name.to_owned(),
        };
        let label = match (field.label(), field.proto3_optional()) {
            (Label::Repeated, _) => "repeated ",
            (_, true) => "optional ",
            _ => "",
        };
        let of = match field.oneof_index {
            Some(index) if !field.proto3_optional() => {
                format!(" of {}", message.oneof_decl[index as usize].name())
            }
            _ => String::new(),
        };
        let (field, number) = (field.name(), field.number());
        writeln!(text, "{name}.{field} = {number} {label}{kind}{of}").unwrap();
    }
    for nested in &message.nested_type {
        add_message(text, nested, &format!("{name}.{}", nested.name()));
    }
}

fn add_enum(text: &mut String, of: &EnumDescriptorProto) {
    for value in &of.value {
        writeln!(text, "{}.{} = {}", of.name(), value.name(), value.number()).unwrap();
    }
}

#[test]
fn names_and_numbers_are_those_that_clients_know() {
    let is = contract();
    let lost: Vec<_> = CONTRACT
        .lines()
        .filter(|line| !is.lines().any(|other| other == *line))
        .collect();
    assert!(lost.is_empty(), "not there any more: {lost:#?}");
    assert!(is == CONTRACT, "tests/it/contract.txt should be:\n{is}");
}
