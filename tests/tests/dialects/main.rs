//! The dialects: each platform's clients and receivers, as the platform's documentation has them, on the wire.
//!
//! The requests are written out as those clients send them, byte for byte.

#![allow(clippy::unwrap_used, reason = "in a test, what cannot be done fails the test")]

mod aioz;
mod millicast;
mod omegastream;
