//! What Cuewire's services have in common.
//!
//! Nouns ([`event`], [`webhook`], [`delivery`], [`ids`]), the messages that travel between the services
//! ([`message`]), pure decisions ([`retry`], [`filter`], [`schema`], [`formats`], [`signature`], [`guard`]), and the
//! mechanical parts: [`amqp`], [`db`], [`config`], [`metrics`], [`names`], [`health`] and [`service`], the entry point.
//! No business loop lives here: what is done with all this, each service says itself.

pub mod amqp;
pub mod catalogue;
pub mod config;
pub mod db;
pub mod delivery;
pub mod event;
pub mod filter;
pub mod formats;
pub mod guard;
pub mod health;
pub mod ids;
pub mod message;
pub mod metrics;
pub mod names;
pub mod retry;
pub mod schema;
pub mod service;
pub mod shutdown;
pub mod signature;
pub mod vault;
pub mod webhook;
