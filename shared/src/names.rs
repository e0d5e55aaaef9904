//! Names, resolved as this machine's files say: by `/etc/hosts`, else by the name servers of `/etc/resolv.conf`. A name is
//! taken as it is, without search domains: it is a tenant's. Both files are read once.
//!
//! The system's own resolver has a thread wait for each name, and a process has some hundreds of them: names whose
//! servers are silent would keep all others from being resolved. Here nothing but the one who asks waits.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const SERVER: &str = "nameserver";
/// What that file means where it names no server (`resolv.conf(5)`).
const OWN_SERVER: &str = "nameserver 127.0.0.1";
/// So many servers are known, as to the system's resolver.
const MAX_SERVERS: usize = 3;
/// So often it is asked, of one server after another.
const TRIES: u32 = 3;
/// A server that has not told a name's addresses by then leaves that to the next one.
const TRY_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Of that, as long as one kind of addresses is waited for where the other is there.
const QUERY_TIMEOUT: Duration = Duration::from_millis(1_000);
/// The longest that [`Names::addresses`] takes.
pub const LONGEST: Duration = TRY_TIMEOUT.saturating_mul(TRIES);

/// Resolves names. Clones share what they know.
#[derive(Debug, Clone)]
pub struct Names(Arc<Known>);

#[derive(Debug)]
struct Known {
    hosts: Hosts,
    /// Each has a resolver of its own: of several in one, the first to refuse would speak for all.
    servers: Vec<TokioResolver>,
    /// The one that answered last.
    answering: AtomicUsize,
}

/// Why a name leads nowhere: a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unresolved(String);

impl Names {
    /// Names as this machine's files say. The error is a sentence about the file that cannot be used.
    pub fn of_this_machine() -> anyhow::Result<Self> {
        let resolv_conf = match std::fs::read_to_string(RESOLV_CONF) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.context(RESOLV_CONF)?,
        };
        let hosts = match Hosts::from_system() {
            Err(error) if error.kind() == ErrorKind::NotFound => Hosts::default(),
            read => read.context("the file of hosts")?,
        };
        Self::asking(&servers_of(&resolv_conf)?, hosts)
    }

    fn asking(servers: &[NameServerConfig], hosts: Hosts) -> anyhow::Result<Self> {
        let mut options = ResolverOpts::default();
        options.timeout = QUERY_TIMEOUT;
        options.attempts = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        // A receiver that moves, or was away for a moment, is to be found: what is remembered, the servers remember.
        options.cache_size = 0;
        let resolver = |server: &NameServerConfig| {
            let config = ResolverConfig::from_name_servers(vec![server.clone()]);
            let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.with_options(options.clone()).build()
        };
        let servers = servers.iter().take(MAX_SERVERS).map(resolver).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Known { hosts, servers, answering: AtomicUsize::new(0) })))
    }

    /// The addresses of a name, those of IPv4 first.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        // A URL's host is ASCII; with what is no name by the letter, as an underscore, some are found all the same.
        let parsed =
            Name::from_ascii(name).map_err(|error| Unresolved(format!("{name:?} is no name: {error}")));
        let mut parsed = parsed?;
        parsed.set_fqdn(true);
        let of_hosts = self.0.in_hosts(&parsed);
        if of_hosts.is_empty() { self.0.ask(&parsed, name).await } else { Ok(of_hosts) }
    }
}

/// The servers that the file names.
fn servers_of(resolv_conf: &str) -> anyhow::Result<Vec<NameServerConfig>> {
    let mut lines: Vec<&str> =
        resolv_conf.lines().map(str::trim).filter(|line| line.starts_with(SERVER)).collect();
    if lines.is_empty() {
        lines.push(OWN_SERVER);
    }
    let (config, _) = parse_resolv_conf(lines.join("\n"))
        .map_err(|error| anyhow::anyhow!("{RESOLV_CONF} cannot be used: {error}"))?;
    Ok(config.name_servers().to_vec())
}

impl Known {
    /// Asks the servers, first the one that answered last.
    async fn ask(&self, parsed: &Name, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let first = self.answering.load(Ordering::Relaxed);
        let mut refusal = String::new();
        for at in (first..).take(TRIES as usize).map(|at| at % self.servers.len()) {
            let asked = tokio::time::timeout(TRY_TIMEOUT, self.servers[at].lookup_ip(parsed.clone())).await;
            let answer = match asked {
                Ok(Ok(found)) => Ok(found.iter().collect()),
                Ok(Err(error)) if error.is_no_records_found() => {
                    Err(Unresolved(format!("{name} has no address")))
                }
                Ok(Err(error)) => {
                    refusal = error.to_string();
                    continue;
                }
                Err(_) => {
                    "the name server does not answer".clone_into(&mut refusal);
                    continue;
                }
            };
            self.answering.store(at, Ordering::Relaxed);
            return answer;
        }
        Err(Unresolved(format!("{name} cannot be resolved: {refusal}")))
    }

    fn in_hosts(&self, name: &Name) -> Vec<IpAddr> {
        let of_type = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of_type);
        let addresses = |lookup: Lookup| {
            lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
        };
        found.flat_map(addresses).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use hickory_resolver::config::ConnectionConfig;
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record};
    use tokio::net::UdpSocket;

    use super::*;
    use crate::service::raise_open_files;

    const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    /// What a name server says of the names that it knows nothing of.
    #[derive(Clone, Copy)]
    enum Others {
        DoNotExist,
        AreNotAskedHere,
        GetNoAnswer,
    }

    /// A name server that knows the names that begin with `well`, and keeps silent about those that begin with `silent`;
    /// and how often it was asked.
    async fn name_server(others: Others) -> (NameServerConfig, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = socket.local_addr().unwrap();
        let asked = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut answer = Message::from_vec(&question[..length]).unwrap().into_response();
                let asked = answer.queries[0].clone();
                let name = asked.name().to_ascii();
                match others {
                    _ if name.starts_with("silent") => continue,
                    // A server that has never heard of the other kind.
                    _ if name.starts_with("v4-only") && asked.query_type() == RecordType::AAAA => continue,
                    _ if name.starts_with("v4-only") => {
                        let address = RData::from(ADDRESSES[0]);
                        answer.add_answer(Record::from_rdata(asked.name().clone(), 60, address));
                    }
                    _ if name.starts_with("well") => {
                        let of_type = ADDRESSES[usize::from(asked.query_type() == RecordType::AAAA)];
                        answer.add_answer(Record::from_rdata(asked.name().clone(), 60, RData::from(of_type)));
                    }
                    Others::DoNotExist => answer.metadata.response_code = ResponseCode::NXDomain,
                    Others::AreNotAskedHere => answer.metadata.response_code = ResponseCode::Refused,
                    Others::GetNoAnswer => continue,
                }
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let mut connection = ConnectionConfig::udp();
        connection.port = address.port();
        (NameServerConfig::new(address.ip(), true, vec![connection]), asked)
    }

    fn names(servers: &[NameServerConfig]) -> Names {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(&b"127.0.0.9 well.of-the-file\n"[..]).unwrap();
        Names::asking(servers, hosts).unwrap()
    }

    #[tokio::test]
    async fn hundreds_of_names_whose_servers_are_silent_keep_no_other_waiting() {
        raise_open_files();
        let (server, asked) = name_server(Others::DoNotExist).await;
        let names = names(&[server]);
        let silent: Vec<_> = (0..600)
            .map(|number| {
                let names = names.clone();
                tokio::spawn(async move { names.addresses(&format!("silent-{number}.example")).await })
            })
            .collect();
        while asked.load(Ordering::SeqCst) < 600 {
            tokio::task::yield_now().await;
        }
        assert_eq!(names.addresses("well.example").await.unwrap(), ADDRESSES);
        assert!(silent.iter().any(|silent| !silent.is_finished()), "others wait meanwhile");
        for silent in silent {
            let error = silent.await.unwrap().unwrap_err().to_string();
            assert!(error.contains("cannot be resolved"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_refuses_or_is_silent_leaves_it_to_the_next_and_the_one_that_answers_is_asked_first()
     {
        for others in [Others::AreNotAskedHere, Others::GetNoAnswer] {
            let (first, asked_first) = name_server(others).await;
            let (second, asked) = name_server(Others::DoNotExist).await;
            let names = names(&[first, second]);
            assert_eq!(names.addresses("well.example").await.unwrap(), ADDRESSES);
            assert_eq!(asked.load(Ordering::SeqCst), 0, "the first knows it");
            let begun = Instant::now();
            let error = names.addresses("nobody.example").await.unwrap_err();
            assert_eq!(error.to_string(), "nobody.example has no address", "so says the second");
            assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
            let before = asked_first.load(Ordering::SeqCst);
            names.addresses("nobody.example").await.unwrap_err();
            assert_eq!(asked_first.load(Ordering::SeqCst), before, "the second answers");
        }
    }

    #[tokio::test]
    async fn addresses_of_one_kind_are_enough() {
        let (server, _) = name_server(Others::DoNotExist).await;
        let begun = Instant::now();
        assert_eq!(names(&[server]).addresses("v4-only.example").await.unwrap(), ADDRESSES[..1]);
        assert!(begun.elapsed() < TRY_TIMEOUT, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn nothing_is_remembered_and_hosts_are_not_asked_for() {
        let (server, asked) = name_server(Others::DoNotExist).await;
        let names = names(&[server]);
        for times in 1..=2 {
            assert_eq!(names.addresses("well_a.example").await.unwrap(), ADDRESSES, "with an underscore");
            assert_eq!(asked.load(Ordering::SeqCst), 2 * times, "both kinds of addresses");
        }
        assert_eq!(names.addresses("WELL.of-the-file").await.unwrap(), [Ipv4Addr::new(127, 0, 0, 9)]);
        assert_eq!(asked.load(Ordering::SeqCst), 4);
        let error = names.addresses("a b").await.unwrap_err();
        assert!(error.to_string().contains("is no name"), "{error}");
    }

    #[test]
    fn a_file_without_a_server_means_this_machine_and_one_that_cannot_be_used_is_named() {
        let addresses =
            |text| servers_of(text).map(|servers| servers.iter().map(|it| it.ip).collect::<Vec<_>>());
        assert_eq!(addresses("search a..b\n").unwrap(), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        let two = addresses("search a..b\n nameserver 10.0.0.1\nnameserver fd00::1\n").unwrap();
        assert_eq!(two, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        let error = addresses("nameserver nowhere\n").unwrap_err();
        assert!(error.to_string().starts_with("/etc/resolv.conf cannot be used"), "{error}");
    }
}
