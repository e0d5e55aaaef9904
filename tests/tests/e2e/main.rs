//! End to end: from a publisher to a receiver, with the four services in between, on real servers.

#![allow(clippy::unwrap_used, reason = "in a test, what cannot be done fails the test")]

mod a_long_wait;
mod accounts;
mod bad_input;
mod burst;
mod changes;
mod dead_letters;
mod duplicates;
mod filters;
mod formats;
mod happy;
mod hostile;
mod operations;
mod publishers;
mod readme;
mod retries;
mod signatures;
mod tenancy;
