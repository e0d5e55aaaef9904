//! End to end: from a publisher to a receiver, with the four services in between, on real servers.

#![allow(clippy::unwrap_used, reason = "in a test, what cannot be done fails the test")]

mod a_full_tier;
mod a_long_wait;
mod accounts;
mod acks;
mod bad_input;
mod burst;
mod changes;
mod connections;
mod dead_letters;
mod documentation;
mod duplicates;
mod filters;
mod formats;
mod given_up;
mod happy;
mod headers;
mod hops;
mod hostile;
mod ingest;
mod logs;
mod metrics;
mod operations;
mod permissions;
mod publishers;
mod publishing;
mod queues;
mod readme;
mod retries;
mod schemas;
mod signatures;
mod tenancy;
