//! `make bench`: its short form, in four parts, which asserts that nothing is missing, and writes the report.

use crate::run_dir::RunDir;
use crate::script::Script;

/// Measures these sections in the short form. The table has a row with each of these words, nothing is missing in
/// any, and the report holds the table. Answers the report's plots.
async fn measured(run_dir: &RunDir, sections: &[&str], rows: &[&str]) -> Vec<String> {
    let arguments: Vec<&str> = std::iter::once("quick").chain(sections.iter().copied()).collect();
    let ended = Script::start(&mut run_dir.script("bench", &arguments)).ended().await;
    ended.expect(0);
    let table: Vec<&String> = ended.said.iter().filter(|line| line.starts_with("| ")).collect();
    let reconciled = table.iter().filter(|row| row.contains(" missing"));
    assert!(reconciled.clone().count() >= 3, "{table:#?}");
    assert!(reconciled.clone().all(|row| row.contains("; 0 missing")), "{table:#?}");
    for what in rows {
        assert!(table.iter().any(|row| row.contains(what)), "{what}: {table:#?}");
    }
    let report = |name| std::fs::read_to_string(run_dir.path.join("report").join(name)).unwrap();
    let markdown = report("report.md");
    for name in ["| cores", "| RabbitMQ | ", "| Postgres | "] {
        assert!(markdown.contains(name), "{name}: {markdown}");
    }
    for row in table {
        assert!(markdown.lines().any(|line| line == row), "{row}: {markdown}");
    }
    report("report.html").split("<svg").skip(1).map(str::to_owned).collect()
}

#[test]
fn the_short_form_of_what_the_path_carries_misses_nothing() {
    RunDir::run(async |run_dir| {
        let sections = ["path", "ingest", "flood", "matching"];
        let rows = ["two quorum queues", "1 webhook", "over HTTP", "beside a flood", "matching"];
        measured(run_dir, &sections, &rows).await;
    });
}

#[test]
fn the_short_form_of_what_others_notice_misses_nothing() {
    RunDir::run(async |run_dir| {
        let rows = [
            "never answers",
            "of their own",
            "of that beside 15 healthy ones",
            "by quarters of the time",
            "the router's batches",
            "how often a sender put deliveries off",
        ];
        measured(run_dir, &["silent", "neighbours"], &rows).await;
    });
}

#[test]
fn the_short_form_of_limits_and_what_waits_misses_nothing() {
    RunDir::run(async |run_dir| {
        let rows = ["a limit of 10", "deliveries wait"];
        measured(run_dir, &["limit", "waiting"], &rows).await;
    });
}

#[test]
fn the_short_form_of_how_cost_grows_misses_nothing_and_is_drawn() {
    RunDir::run(async |run_dir| {
        let rows = [
            "= 100: the broker",
            "blocks read by the database",
            "one event with its deliveries, p99",
            "of a router",
        ];
        let plots = measured(run_dir, &["growth", "reads", "memory"], &rows).await;
        for plot in ["by webhooks registered", "by events in the log", "by deliveries waiting"] {
            let of_it = plots.iter().filter(|svg| svg.contains(plot) && svg.contains("<circle"));
            assert_eq!(of_it.count(), 3, "{plot}: {plots:?}");
        }
    });
}

#[test]
fn what_the_benchmarks_measure_is_told_without_a_stack() {
    RunDir::run(async |run_dir| {
        let help = Script::start(&mut run_dir.script("bench", &["help"])).ended().await;
        help.expect(0);
        let sections = [
            "silent",
            "path",
            "ingest",
            "neighbours",
            "flood",
            "limit",
            "waiting",
            "outage",
            "matching",
            "growth",
            "reads",
            "memory",
            "fair",
        ];
        for section in sections {
            let begins = |line: &String| line.split_whitespace().next() == Some(section);
            assert!(help.said.iter().any(begins), "{section}: {:#?}", help.said);
        }
    });
}
