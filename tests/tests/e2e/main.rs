//! End to end: from a publisher to a receiver, with the four services in between, on real servers.

#![allow(clippy::unwrap_used, reason = "in a test, what cannot be done fails the test")]

mod a_full_tier;
mod a_long_wait;
mod accounts;
mod acks;
mod bad_input;
mod breaker;
mod burst;
mod changes;
mod connections;
mod dead_letters;
mod documentation;
mod duplicates;
mod fan_out;
mod filters;
mod formats;
mod given_up;
mod handshake;
mod happy;
mod headers;
mod hops;
mod hostile;
mod ingest;
mod limits;
mod listening;
mod logs;
mod made_up;
mod metrics;
mod native;
mod operations;
mod organizations;
mod pages;
mod permissions;
mod private_addresses;
mod publishers;
mod publishing;
mod queues;
mod readme;
mod retention;
mod retries;
mod roles;
mod schemas;
mod signatures;
mod stats;
mod tenancy;
