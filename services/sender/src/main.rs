//! sender

fn main() {}
