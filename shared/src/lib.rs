//! shared

pub mod filter;
