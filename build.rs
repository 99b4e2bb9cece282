//! Compiles the contract in `proto/` with protox, so that nobody needs protoc, and keeps the descriptors
//! for server reflection.

#![allow(
    clippy::disallowed_methods,
    reason = "Cargo tells a build script where to write through the environment"
)]

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let descriptors = protox::compile(
        ["rowgate/v1/export.proto", "rowgate/v1/admin.proto"],
        ["proto"],
    )?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out_dir.join("rowgate_descriptor.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(true)
        // Payloads are shared with the stage that made them, not copied into a Vec.
        .bytes(".")
        // Sorted, so that the same answer has the same bytes.
        .btree_map(".")
        // Rendered in parallel as wire bytes; see src/rpc/pb/encoded_rows.rs.
        .extern_path(
            ".rowgate.v1.ValueRows",
            "crate::rpc::pb::encoded_rows::EncodedRows",
        )
        .compile_fds(descriptors)?;
    Ok(())
}
