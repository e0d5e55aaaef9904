//! The demonstration that `make demo` shows once the stack is up: webhooks for five platforms, events
//! published to RabbitMQ, and each delivery as it arrives. Stays up until Ctrl-C; `--once` (or
//! `CUEWIRE_DEMO_ONCE=1`) ends it after the show.
//!
//! Fails when what it shows does not happen in time.

mod plans;
mod show;
mod stack;

use std::process::ExitCode;

use cuewire::config::Environment;
use tokio::signal::unix::{SignalKind, signal};

use show::Show;
use stack::Stack;

#[tokio::main]
async fn main() -> ExitCode {
    let environment = Environment::of_process();
    let once = std::env::args().any(|argument| argument == "--once")
        || environment.text("CUEWIRE_DEMO_ONCE").is_some_and(|value| value != "0");
    tokio::select! {
        result = run(&environment, once) => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("\nThe demo failed: {error:#}");
                ExitCode::FAILURE
            }
        },
        () = told_to_end() => {
            println!("\nEnding.");
            ExitCode::SUCCESS
        }
    }
}

async fn run(environment: &Environment, once: bool) -> anyhow::Result<()> {
    let stack = Stack::of(environment)?;
    let mut show = Show::prepare(&stack).await?;
    show.publish_samples().await?;
    show.watch_until_complete().await?;
    show.tell_dead_letters().await?;
    if !once {
        show.tell_how_to_go_on();
        show.watch_for_ever().await;
    }
    Ok(())
}

async fn told_to_end() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
