//! `make test`, told to end while a command of cargo's is under way. That command is a stand-in, since the tests
//! cannot run themselves.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cuewire_tests::servers;
use cuewire_tests::wait::PATIENCE;

use crate::run_dir::RunDir;
use crate::script::Script;
use crate::traces::Traces;

/// The servers' end takes a few seconds, and cargo's command would take 10 minutes.
const SOON: Duration = PATIENCE;

/// In the place of cargo: what is named by `HANGS_AT` takes 10 minutes, in a process of its own, and all else is
/// done at once.
const CARGO: &str = r#"#!/bin/sh
[ "$1" != metadata ] || echo '{"target_directory":"/nowhere"}'
[ "$1" = "$HANGS_AT" ] || exit 0
sleep 600 &
echo "cargo $1 is under way"
wait
"#;

/// Starts `make test` with that cargo, and waits until this command of cargo's is under way.
async fn start(run_dir: &RunDir, hangs_at: &str) -> Script {
    let bin = run_dir.path.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("cargo"), CARGO).unwrap();
    std::fs::set_permissions(bin.join("cargo"), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = servers::script("test", &run_dir.path);
    let path = command.as_std().get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap();
    let path = format!("{}:{}", bin.display(), path.to_str().unwrap());
    command.env("PATH", path).env("HANGS_AT", hangs_at).env("CUEWIRE_TEST_README_TOOLS", "/nowhere");
    // Any argument leaves the checks out.
    let test = Script::start(command.arg("-v"));
    let line = format!("cargo {hangs_at} is under way");
    test.says(&line, |said| said.contains(&line).then_some(())).await;
    test
}

/// Where it works: a directory of its own.
fn work(test: &Script) -> PathBuf {
    servers::root().join(format!(".run/test.{}", test.pid()))
}

/// Tells it to end by `tell`, and wants this exit code soon, and nothing left.
async fn ends(run_dir: &RunDir, test: Script, tell: impl AsyncFnOnce(&Script), code: i32) {
    let work = work(&test);
    // What cargo runs is known by the path to the stand-in.
    let (own, cargos) = (Traces::of(&work), run_dir.traces());
    cargos.include(&["cargo"], &[]);
    let asked = Instant::now();
    tell(&test).await;
    let ended = test.ended().await;
    ended.expect(code);
    assert!(asked.elapsed() < SOON, "it took {:?}:\n{}", asked.elapsed(), ended.said.join("\n"));
    own.vanish().await;
    cargos.vanish().await;
    assert!(!work.exists(), "{} is left", work.display());
}

#[test]
fn sigterm_ends_make_test_soon_while_tests_run_and_leaves_no_servers() {
    RunDir::run(async |run_dir| {
        let test = start(run_dir, "test").await;
        Traces::of(&work(&test)).include(&["beam.smp", "postgres", "epmd"], &[]);
        ends(run_dir, test, Script::terminate, 143).await;
    });
}

#[test]
fn ctrl_c_ends_make_test_soon_while_it_builds() {
    RunDir::run(async |run_dir| {
        let test = start(run_dir, "build").await;
        ends(run_dir, test, Script::interrupt, 130).await;
    });
}
