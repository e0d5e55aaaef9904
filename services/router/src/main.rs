//! router

fn main() {}
