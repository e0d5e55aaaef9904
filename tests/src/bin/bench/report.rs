//! The report of a run: the table, in Markdown, and with plots as a page that needs nothing else.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::figures::{Row, median};
use crate::host;
use crate::plot;
use crate::stack::Stack;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:72em;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}\
    svg{max-width:100%;height:auto}.plots{display:flex;flex-wrap:wrap;gap:1em}";

/// What has been measured so far, and on what.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Vec<(&'static str, String)>,
    rows: Vec<Row>,
    directory: PathBuf,
}

impl Report {
    /// A report that is written into this directory.
    pub(crate) async fn of(stack: &Stack, directory: PathBuf) -> anyhow::Result<Self> {
        Ok(Self { machine: host::describe(stack).await?, rows: Vec::new(), directory })
    }

    /// Adds what a section has measured, and writes it all: what was measured is kept, though a later section
    /// may fail.
    pub(crate) fn add(&mut self, rows: Vec<Row>) -> anyhow::Result<()> {
        self.rows.extend(rows);
        std::fs::create_dir_all(&self.directory)?;
        std::fs::write(self.markdown_file(), self.markdown())?;
        std::fs::write(self.html_file(), self.html()?)?;
        Ok(())
    }

    pub(crate) fn markdown_file(&self) -> PathBuf {
        self.directory.join("report.md")
    }

    pub(crate) fn html_file(&self) -> PathBuf {
        self.directory.join("report.html")
    }

    /// The table of all figures.
    pub(crate) fn table(&self) -> String {
        let mut table = "| measured | median | all runs |\n|---|---|---|\n".to_owned();
        for row in &self.rows {
            let [name, median, runs] = cells(row);
            // Writing to a string cannot fail.
            let _ = writeln!(table, "| {name} | {median} | {runs} |");
        }
        table
    }

    fn markdown(&self) -> String {
        let mut text = "# Benchmarks of Cuewire\n\n| | |\n|---|---|\n".to_owned();
        for (name, value) in &self.machine {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        text + "\n" + &self.table()
    }

    fn html(&self) -> anyhow::Result<String> {
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Benchmarks of Cuewire</title>\
             <style>{STYLE}</style></head><body>\n<h1>Benchmarks of Cuewire</h1>\n<table>\n"
        );
        for (name, value) in &self.machine {
            let _ = writeln!(page, "<tr><th>{name}</th><td>{}</td></tr>", escaped(value));
        }
        page.push_str("</table>\n<p>Points are medians of the runs, bars reach from the lowest to the highest.</p>\n<div class=\"plots\">\n");
        for svg in plot::all(&self.rows)? {
            page.push_str(&svg);
        }
        page.push_str("</div>\n<table>\n<tr><th>measured</th><th>median</th><th>all runs</th></tr>\n");
        for row in &self.rows {
            let [name, median, runs] = cells(row).map(|cell| escaped(&cell));
            let _ = writeln!(page, "<tr><td>{name}</td><td>{median}</td><td>{runs}</td></tr>");
        }
        page.push_str("</table>\n</body></html>\n");
        Ok(page)
    }
}

/// What was measured, its median with unit and note, and every value.
fn cells(row: &Row) -> [String; 3] {
    let runs: Vec<String> = row.values.iter().map(|value| format!("{value:.3}")).collect();
    let median = format!("{:.3} {}{}", median(&row.values), row.unit, row.note);
    [row.name.clone(), median, runs.join(" ")]
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Where the report goes: beside the file that says where the stack is.
pub(crate) fn directory_beside(env_file: &Path) -> PathBuf {
    env_file.with_file_name("report")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Place;

    fn report() -> Report {
        let place = Place { plot: "times, by things".to_owned(), axis: "things", x: 10, line: "first" };
        let rows = vec![
            Row::new("a < b", "ms", vec![3.0, 1.0, 2.0]).note("; 0 missing").at(place),
            Row::new("memory", "MiB", vec![1.5]),
        ];
        Report { machine: vec![("cores", "2".to_owned())], rows, directory: PathBuf::new() }
    }

    #[test]
    fn the_table_has_a_row_for_each_figure_with_every_run() {
        let markdown = report().markdown();
        for line in [
            "| cores | 2 |",
            "| a < b | 2.000 ms; 0 missing | 3.000 1.000 2.000 |",
            "| memory | 1.500 MiB | 1.500 |",
        ] {
            assert!(markdown.lines().any(|other| other == line), "{line}: {markdown}");
        }
    }

    #[test]
    fn the_page_holds_its_plots_and_loads_nothing() {
        let html = report().html().unwrap();
        assert_eq!(html.matches("<svg").count(), 1, "{html}");
        assert!(html.contains("<td>a &lt; b</td><td>2.000 ms; 0 missing</td>"), "{html}");
        for loading in ["src=", "href=", "url(", "@import"] {
            assert!(!html.contains(loading), "{loading}");
        }
    }
}
