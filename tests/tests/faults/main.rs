//! Faults: the real binaries are killed and restarted, and so are the servers below them, under load.
//!
//! What was accepted must arrive, whatever happens; what arrives twice must carry the same `webhook-id`.

#![allow(clippy::unwrap_used, reason = "in a test, what cannot be done fails the test")]

mod crashes;
mod database_away;
mod encryption;
mod hanging;
mod load;
mod servers;
mod starting;
mod stopping;
mod together;
