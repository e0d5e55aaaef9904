//! api

fn main() {}
