//! What is shipped to run Cuewire with: its configuration, its broker users, its alerts and dashboards. The
//! manifests themselves are checked by `deploy/local/deployment`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod broker_users;
mod environment;
mod ready;
mod watching;
