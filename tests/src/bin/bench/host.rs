//! The machine that was measured, as far as it is needed to compare figures.

use std::collections::HashMap;

use anyhow::Context;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use crate::stack::Stack;

/// What a client of AMQP 0-9-1 says first, and what the broker's answer says of itself: the field `version` of
/// its properties, a long string.
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
const VERSION_FIELD: &[u8] = b"\x07versionS";
/// The method, with all its properties, is smaller.
const MAX_GREETING_BYTES: usize = 4_096;

/// What there is to say of the machine: names and values.
pub(crate) async fn describe(stack: &Stack) -> anyhow::Result<Vec<(&'static str, String)>> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
    let cpus = read("/proc/cpuinfo")?;
    let memory = fields(&read("/proc/meminfo")?).remove("MemTotal").context("MemTotal")?;
    let kib: f64 = memory.trim_end_matches(" kB").parse()?;
    let postgres = stack.database().await?.query_one("SHOW server_version", &[]).await?;
    let at = OffsetDateTime::now_utc();
    Ok(vec![
        ("measured", at.format(format_description!("[year]-[month]-[day] [hour]:[minute] UTC"))?),
        (
            "processor",
            fields(&cpus).remove("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        ),
        ("cores, shared by all", std::thread::available_parallelism()?.to_string()),
        ("memory", format!("{:.1} GiB", kib / 1_024.0 / 1_024.0)),
        ("kernel", format!("Linux {}", read("/proc/sys/kernel/osrelease")?.trim())),
        ("RabbitMQ", rabbitmq_version(&stack.amqp_url).await?),
        ("Postgres", postgres.get(0)),
    ])
}

/// `name : value` lines, of which the last one of a name counts.
fn fields(text: &str) -> HashMap<&str, String> {
    let field = |line| {
        let (name, value) = str::split_once(line, ':')?;
        Some((name.trim(), value.trim().to_owned()))
    };
    text.lines().filter_map(field).collect()
}

async fn rabbitmq_version(amqp_url: &str) -> anyhow::Result<String> {
    let url: Url = amqp_url.parse()?;
    let host = url.host_str().context("AMQP_URL names a host")?;
    let mut broker = TcpStream::connect((host, url.port().unwrap_or(5_672))).await?;
    broker.write_all(PROTOCOL_HEADER).await?;
    let mut greeting = Vec::new();
    while greeting.len() < MAX_GREETING_BYTES && broker.read_buf(&mut greeting).await? > 0 {
        if let Some(version) = version_of(&greeting) {
            return Ok(version);
        }
    }
    anyhow::bail!("the broker does not say its version")
}

/// The version in what the broker has said so far, if that is all there.
fn version_of(greeting: &[u8]) -> Option<String> {
    let at = greeting.windows(VERSION_FIELD.len()).position(|window| window == VERSION_FIELD)?;
    let (length, text) = greeting[at + VERSION_FIELD.len()..].split_first_chunk()?;
    let text = text.get(..u32::from_be_bytes(*length) as usize)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_version_is_read_once_it_is_all_there() {
        let greeting = b"\x01\x00\x00\x00\x0a\x07versionS\x00\x00\x00\x064.1.10\x08platformS";
        assert_eq!(version_of(greeting).as_deref(), Some("4.1.10"));
        for end in 0..23 {
            assert_eq!(version_of(&greeting[..end]), None, "{end}");
        }
    }

    #[test]
    fn fields_are_lines_with_a_colon() {
        let fields = fields("MemTotal:  16 kB\n\nmodel name\t: Some CPU @ 2:1\n");
        assert_eq!(fields["MemTotal"], "16 kB");
        assert_eq!(fields["model name"], "Some CPU @ 2:1");
    }
}
