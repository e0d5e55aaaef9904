//! RabbitMQ: what is declared there, and the two mechanical parts that services use: a consumer that yields
//! typed messages and a publisher that awaits confirms. Both reconnect for ever; neither knows what the
//! messages mean.

pub mod agreed;
pub mod connection;
pub mod consumer;
pub mod grants;
mod link;
pub mod peers;
pub mod publisher;
mod settle;
pub mod topology;
mod verdicts;

pub use agreed::Agreed;
pub use connection::{Broker, Timeouts};
pub use consumer::{Consumer, Message, Received, Source};
pub use link::Link;
pub use publisher::{Publication, PublishError, Publisher};
