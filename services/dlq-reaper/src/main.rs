//! dlq-reaper

fn main() {}
