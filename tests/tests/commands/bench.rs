//! `make bench`: its short form, which asserts that nothing is missing, and writes the report.

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
        for what in [
            "two quorum queues",
            "1 webhook",
            "over HTTP",
            "beside a flood",
            "matching",
            "= 100: the broker",
            "one event with its deliveries, p99",
            "of a router",
        ] {
            assert!(table.iter().any(|row| row.contains(what)), "{what}: {table:#?}");
        }
        let report = |name| std::fs::read_to_string(run_dir.path.join("report").join(name)).unwrap();
        let (markdown, html) = (report("report.md"), report("report.html"));
        for name in ["| cores", "| RabbitMQ | ", "| Postgres | "] {
            assert!(markdown.contains(name), "{name}: {markdown}");
        }
        for row in table {
            assert!(markdown.lines().any(|line| line == row), "{row}: {markdown}");
        }
        let plots: Vec<&str> = html.split("<svg").skip(1).collect();
        for plot in ["by webhooks registered", "by events in the log", "by deliveries waiting"] {
            let of_it = plots.iter().filter(|svg| svg.contains(plot) && svg.contains("<circle"));
            assert_eq!(of_it.count(), 3, "{plot}: {html}");
        }
    });
}

#[test]
fn what_the_benchmarks_measure_is_told_without_a_stack() {
    RunDir::run(async |run_dir| {
        let help = Script::start(&mut run_dir.script("bench", &["help"])).ended().await;
        help.expect(0);
        for section in ["path", "ingest", "fair", "matching", "growth", "reads", "memory"] {
            assert!(help.line(section).trim_start().starts_with(section), "{:#?}", help.said);
        }
    });
}
