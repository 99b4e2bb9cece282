//! `rowgate demo` where a server uses its folder already.

use std::{fs, fs::File, process::Stdio, time::Duration};

use tokio::process::Command;

use super::rig::files;
use crate::support::temp_dir;

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_does_not_take_the_folder_of_one_that_runs() {
    let held = temp_dir();
    let folder = held.path().join("rowgate-demo");
    fs::create_dir(&folder).unwrap();
    for name in ["rowgate.toml", "queue.db", "shop.db"] {
        fs::write(folder.join(name), name).unwrap();
    }
    // As a running server holds it.
    let lock = File::create(folder.join("queue.db.lock")).unwrap();
    lock.lock().unwrap();
    let before = files(&folder);
    let demo = Command::new(env!("CARGO_BIN_EXE_rowgate"))
        .arg("demo")
        .current_dir(held.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(Duration::from_secs(60), demo).await;
    let ended = ended.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("a server uses ./rowgate-demo"), "{said}");
    assert_eq!(files(&folder), before);
    assert_eq!(fs::read(folder.join("queue.db")).unwrap(), b"queue.db");
}
