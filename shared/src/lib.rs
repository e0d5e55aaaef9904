//! shared

pub mod catalogue;
