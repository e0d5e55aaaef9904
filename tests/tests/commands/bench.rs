//! `make bench`: its short form, which asserts that nothing is missing.

use crate::run_dir::RunDir;
use crate::script::Script;

#[test]
fn the_benchmarks_short_form_runs_to_its_end_and_nothing_is_missing() {
    RunDir::run(async |run_dir| {
        let ended = Script::start(&mut run_dir.script("bench", &["quick"])).ended().await;
        ended.expect(0);
        let table: Vec<&String> = ended.said.iter().filter(|line| line.starts_with("| ")).collect();
        let reconciled = table.iter().filter(|row| row.contains(" missing"));
        assert!(reconciled.clone().count() >= 5, "{table:#?}");
        assert!(reconciled.clone().all(|row| row.contains("; 0 missing")), "{table:#?}");
        for what in ["two quorum queues", "1 webhook", "over HTTP", "beside a flood", "matching"] {
            assert!(table.iter().any(|row| row.contains(what)), "{what}: {table:#?}");
        }
    });
}
