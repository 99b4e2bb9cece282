//! Python's grpcio through stubs that grpcio-tools makes of `proto/`: the example client, as a program and as a library.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use super::bad_input::shop::Shop;
use crate::support::{self, program, server_env};

const CLIENT: &str = include_str!("../python/grpcio_client.py");
/// Runs what follows in the folder of the stubs, where the example looks for them.
const IN_FOLDER: &str = "import os, runpy, sys; os.chdir(sys.argv[1]); del sys.argv[:2]; \
                         runpy.run_path(sys.argv[0], run_name='__main__')";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example() -> PathBuf {
    repository().join("examples/python/export.py")
}

async fn stubs() -> tempfile::TempDir {
    let folder = support::temp_dir();
    let out = folder.path().display();
    let proto = repository().join("proto");
    let args = [
        "-m".to_owned(),
        "grpc_tools.protoc".to_owned(),
        format!("-I{}", proto.display()),
        format!("--python_out={out}"),
        format!("--grpc_python_out={out}"),
        "rowgate/v1/export.proto".to_owned(),
        "rowgate/v1/admin.proto".to_owned(),
    ];
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    let python = server_env("ROWGATE_TEST_PYTHON");
    program::run(Path::new(&python), &args).await.success();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_exports_a_file_and_streams_rows() {
    let shop = Shop::sqlite().await;
    let stubs = stubs().await;
    let file = stubs.path().join("orders.csv");
    let args = |table: &str| {
        [
            stubs.path().display().to_string(),
            example().display().to_string(),
            shop.rowgate.address.clone(),
            "open".to_owned(),
            table.to_owned(),
            file.display().to_string(),
        ]
    };
    let printed = support::python(IN_FOLDER, &args("orders")).await.success();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 20_001);
    assert!(printed.contains("orders.csv: 20000 rows"), "{printed}");
    assert!(printed.ends_with("streamed: 20000 rows\n"), "{printed}");

    let refused = support::python(IN_FOLDER, &args("salaries")).await;
    assert_eq!(refused.code, 1);
    let told: serde_json::Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!(told["code"], "PERMISSION_DENIED");
    assert_eq!(told["reason"], "TABLE_NOT_ALLOWED");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_sees_rows_files_and_the_details_of_errors() {
    let shop = Shop::sqlite().await;
    let stubs = stubs().await;
    let script = stubs.path().join("grpcio_client.py");
    std::fs::write(&script, CLIENT).unwrap();
    let file = stubs.path().join("orders.csv");
    let args = [
        stubs.path().display().to_string(),
        script.display().to_string(),
        shop.rowgate.address.clone(),
        "open".to_owned(),
        example().parent().unwrap().display().to_string(),
        file.display().to_string(),
    ];
    let printed = support::python(IN_FOLDER, &args).await.success();
    let seen: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(seen["states"], serde_json::json!([4, 4]));
    assert_eq!(seen["rows"], 20_000);
    assert_eq!(
        seen["schema"],
        serde_json::json!([["id", "int64"], ["name", "string"], ["amount", "int64"]])
    );
    // VALUES keeps 64-bit integers as text, JSON lines as numbers.
    assert_eq!(
        seen["values"],
        serde_json::json!([20_000, ["20000", "customer 20000", "0"]])
    );
    assert_eq!(
        seen["lines"],
        serde_json::json!([20_000, {"id": 20_000, "name": "customer 20000", "amount": 0}])
    );
    assert_eq!(seen["by_parameter"], 3);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("id;name;amount\n20000;customer 20000;0\n"));

    let bad = &seen["bad_fields"];
    assert_eq!(bad["code"], "INVALID_ARGUMENT");
    assert_eq!(bad["reason"], "INVALID_FIELD");
    assert_eq!(bad["domain"], "rowgate");
    assert!(bad["fields"]["spec.priority"].is_string(), "{bad}");
    let bad = &seen["bad_column"];
    assert_eq!(bad["metadata"]["position"], "1");
    let said = bad["fields"]["spec.filter"].as_str().unwrap();
    assert!(said.contains("größe"), "{said}");
    // The message travels in a header, percent-encoded.
    assert!(bad["message"].as_str().unwrap().contains("größe"), "{bad}");
    let bad = &seen["not_rows"];
    assert_eq!(bad["code"], "FAILED_PRECONDITION");
    assert_eq!(bad["reason"], "NOT_ROWS");
    assert!(bad.get("retry_after_seconds").is_none());
}
