//! Golden requests: every sample of the catalogue in every format, with a fixed clock and fixed ids, one file
//! a format in `golden/`. A change of what receivers see shows there; `INSTA_UPDATE=always` writes them anew.
//! `golden/verify.py` recomputes their signatures with Python's standard library.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::conformance::{SECRET_TEXTS, outgoing, read};
use super::{Format, Request, Signing};
use crate::catalogue;

/// All requests of a format, and what it cannot carry.
fn requests(format: Format) -> String {
    let mut text = String::new();
    let mut refused: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for entry in catalogue::all() {
        match format.prepare(&outgoing(&read(entry))) {
            Ok(request) => text.push_str(&show(&entry.name, &request)),
            Err(error) => refused.entry(error.to_string()).or_default().push(&entry.name),
        }
    }
    for (error, types) in refused {
        let _ = writeln!(text, "=== Not sent, since {error}:\n{}\n", types.join("\n"));
    }
    text
}

fn show(event_type: &str, request: &Request) -> String {
    let mut text = format!("=== {event_type}\nPOST\n");
    let event_headers = request.event_headers.iter().map(|(name, value)| (name.as_str(), value));
    for (name, value) in request.headers.iter().map(|(name, value)| (*name, value)).chain(event_headers) {
        let _ = writeln!(text, "{name}: {value}");
    }
    let body = match std::str::from_utf8(&request.body) {
        Ok(body) => body.to_owned(),
        Err(_) => format!("base64 {}", BASE64.encode(&request.body)),
    };
    let _ = writeln!(text, "\n{body}\n");
    text
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/formats/golden")
}

#[test]
fn every_sample_in_every_format_is_sent_as_it_was_reviewed() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(directory());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for format in Format::ALL {
            insta::assert_snapshot!(format.as_str(), requests(format));
        }
    });
}

#[test]
fn the_signatures_are_those_that_another_implementation_computes() {
    let signed = Format::ALL.into_iter().filter(|format| format.signing() != Signing::None);
    for format in signed {
        let output = Command::new("python3")
            .arg(directory().join("verify.py"))
            .arg(directory().join(format!("{}.snap", format.as_str())))
            .args(SECRET_TEXTS)
            .output()
            .expect("python3 runs");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        let sent = requests(format).matches("\nPOST\n").count();
        assert!(sent > 0);
        assert_eq!(told.trim(), format!("{sent} requests verified"), "{}", format.as_str());
    }
}
