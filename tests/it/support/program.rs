//! Programs that are not ours: Python with its readers and clients, and grpcurl.

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use super::server_env;

/// Below the test's own, so that this names what hangs.
const TIMEOUT: Duration = Duration::from_secs(150);

#[derive(Clone, Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// What it printed, or a panic with all that it said.
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "failed: {}{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs Python code (`include_str!` of a file in `tests/it/python/`, usually) with `args` in `sys.argv[1:]`.
pub async fn python(code: &str, args: &[impl AsRef<OsStr>]) -> Output {
    let mut arguments: Vec<&OsStr> = vec![OsStr::new("-c"), OsStr::new(code)];
    arguments.extend(args.iter().map(AsRef::as_ref));
    run(Path::new(&server_env("ROWGATE_TEST_PYTHON")), &arguments).await
}

/// Runs grpcurl 1.8.6, the version that many people still have: it speaks only reflection v1alpha.
pub async fn grpcurl(args: &[impl AsRef<OsStr>]) -> Output {
    let program = Path::new(&server_env("ROWGATE_TEST_PYTHON")).with_file_name("grpcurl");
    let arguments: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
    run(&program, &arguments).await
}

/// Runs any program to its end, without standard input.
pub async fn run(program: &Path, args: &[&OsStr]) -> Output {
    let child = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TIMEOUT, child)
        .await
        .unwrap_or_else(|_| {
            panic!(
                "{} {args:?} still runs after {TIMEOUT:?}",
                program.display()
            )
        })
        .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
