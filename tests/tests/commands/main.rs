//! The commands that people type: the scripts behind `make demo`, `make up`, `make down` and `make test`, run to
//! their end, interrupted, and beside others.

#![allow(clippy::unwrap_used, reason = "in a test, what cannot be done fails the test")]

mod bench;
mod demo;
mod interrupted;
mod run_dir;
mod script;
mod stack;
mod traces;
