//! The harness: what the end-to-end tests, the fault tests and the demonstration are written with.
//!
//! A test says which [`Setup`] it needs and gets a [`System`]: a vhost and a database of its own on real
//! servers, the services running on them, clients for the API and the broker. When the test ends, the
//! services are stopped in the order of the flow, and nothing may be left in any queue. [`Receiver`] stands
//! for a customer's endpoint and does whatever its script says.
//!
//! Ordinary tests run the services as tasks of the test's own process; tests of faults run the binaries.

#![allow(clippy::unwrap_used, reason = "in a test's harness, what cannot be done fails the test")]

pub mod amqp;
pub mod api;
mod drain;
pub mod event;
pub mod management;
pub mod metrics;
pub mod organization;
mod panics;
pub mod parts;
mod place;
mod policy;
pub mod process;
pub mod prometheus;
pub mod proxy;
mod raw;
pub mod receiver;
mod replicas;
mod running;
mod seed;
pub mod servers;
mod setup;
pub mod system;
pub mod verify;
pub mod wait;

pub use api::{Client, Reply};
pub use event::event;
pub use management::Permissions;
pub use organization::{Organization, Webhook};
pub use parts::Parts;
pub use proxy::Proxy;
pub use receiver::{Answer, Receiver, Request};
pub use running::Service;
pub use seed::seed;
pub use setup::Setup;
pub use system::System;
pub use wait::until;
