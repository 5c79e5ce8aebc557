//! The scripts refuse arguments that they do not know before they install or build anything,
//! and `--help` only prints.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// The scripts that can run here: two are in Python, which a machine that only
/// builds need not have.
fn scripts() -> &'static [&'static str] {
    let python = Command::new("python3").arg("--version").output().is_ok();
    if python {
        &[
            "test",
            "dev",
            "cluster",
            "compare-tools",
            "compare-kafka",
            "count-instructions",
            "measure-start",
            "measure-shards",
        ]
    } else {
        &["test", "dev", "cluster", "compare-tools"]
    }
}

/// Programs a script may run to look at its arguments; it finds no others, so
/// nothing is installed or built.
const PROGRAMS: [&str; 5] = ["bash", "dirname", "env", "python3", "sed"];

fn run(script: &str, arguments: &[&str]) -> (i32, String, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        let path = ["/usr/bin", "/bin", "/usr/local/bin"].map(|dir| Path::new(dir).join(program));
        if let Some(found) = path.iter().find(|path| path.exists()) {
            symlink(found, folder.path().join(program)).unwrap();
        }
    }
    let output = Command::new("/bin/bash")
        .arg("-c")
        .arg("exec \"$0\" \"$@\"")
        .arg(root.join("scripts").join(script))
        .args(arguments)
        .env("PATH", folder.path())
        .env("CORELANE_CACHE", folder.path().join("cache"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_prints_the_usage_and_does_nothing() {
    for script in scripts() {
        for arguments in [&["--help"][..], &["-h"]] {
            let (code, said, error) = run(script, arguments);
            assert_eq!(code, 0, "{script} {arguments:?}: {error}");
            assert!(said.contains(&format!("scripts/{script}")) || said.contains(script), "{script}: {said}");
        }
    }
    for run_of in ["unit", "integration", "all"] {
        let (code, said, _) = run("test", &[run_of, "--help"]);
        assert!(code == 0 && said.contains("scripts/test unit"), "{run_of}: {said}");
    }
}

#[test]
fn mistyped_arguments_end_with_the_usage_and_code_2() {
    let mistyped: [(&str, &[&str]); 33] = [
        ("test", &["simulate", "--sedes", "0..5"]),
        ("test", &["simulate", "--seeds"]),
        ("test", &["--ful"]),
        ("test", &["--hlep"]),
        ("test", &["-full"]),
        ("test", &["--full", "--kepe"]),
        ("test", &["-k"]),
        ("test", &["unti"]),
        ("test", &["help"]),
        ("test", &["--full", "crash"]),
        ("test", &["unit", "--full"]),
        ("test", &["unit", "crash"]),
        ("test", &["all", "--integration"]),
        ("test", &["integration", "--ful"]),
        ("test", &["integration", "-k", "crash", "--kepe"]),
        ("test", &["integration", "crash"]),
        ("test", &["integration", "-n"]),
        ("dev", &[]),
        ("dev", &["unti", "x"]),
        ("dev", &["unit"]),
        ("dev", &["it", "--keep"]),
        ("dev", &["lint", "src"]),
        ("compare-tools", &["--ful"]),
        ("cluster", &["--broker", "3"]),
        ("cluster", &["--brokers"]),
        ("cluster", &["--brokers", "three"]),
        ("cluster", &["--zookeepers", "0"]),
        ("compare-kafka", &["--ful"]),
        ("compare-kafka", &["--shrot"]),
        ("compare-kafka", &["--only", "no-such-axis"]),
        ("compare-kafka", &["--pairs", "many"]),
        ("count-instructions", &["--jsn", "x"]),
        ("count-instructions", &["no-such-work"]),
    ];
    for (script, arguments) in mistyped.iter().filter(|(script, _)| scripts().contains(script)) {
        let (code, _, error) = run(script, arguments);
        assert_eq!(code, 2, "{script} {arguments:?}: {error}");
        assert!(error.contains(script), "{script} {arguments:?}: {error}");
    }
}
