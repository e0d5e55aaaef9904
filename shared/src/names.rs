//! Names, resolved as this machine's files say: by `/etc/hosts`, else by the name servers of `/etc/resolv.conf`, one after
//! another, under its search domains. Both are read once.
//!
//! The system's own resolver has a thread wait for each name, and a process has some hundreds of them: names whose
//! servers are silent would keep all others from being resolved. Here nothing but the one who asks waits.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What that file means where it names no server (`resolv.conf(5)`).
const OWN_SERVER: &str = "\nnameserver 127.0.0.1\n";
/// As many are asked as the system's resolver asks.
const MAX_SERVERS: usize = 3;
/// A server that has not told a name's addresses by then leaves that to the next one.
const SERVER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// The longest that [`Names::addresses`] takes.
pub const LONGEST: Duration = Duration::from_millis(1_500 * MAX_SERVERS as u64);

/// Resolves names. Clones share the files' contents.
#[derive(Debug, Clone)]
pub struct Names {
    hosts: Arc<Hosts>,
    servers: Vec<TokioResolver>,
}

/// Why a name leads nowhere: a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unresolved(String);

impl Names {
    /// Names as this machine's files say. The error is a sentence about the file that cannot be used.
    pub fn of_this_machine() -> anyhow::Result<Self> {
        let text = match std::fs::read_to_string(RESOLV_CONF) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.context(RESOLV_CONF)?,
        };
        // Without the file there is nobody in it.
        Self::configured(&text, Hosts::from_system().unwrap_or_default())
    }

    fn configured(resolv_conf: &str, hosts: Hosts) -> anyhow::Result<Self> {
        let is_server = |line: &str| line.trim_start().starts_with("nameserver");
        let named = if resolv_conf.lines().any(is_server) { "" } else { OWN_SERVER };
        let (config, options) = parse_resolv_conf(format!("{resolv_conf}{named}"))
            .map_err(|error| anyhow::anyhow!("{RESOLV_CONF} cannot be used: {error}"))?;
        Self::asking(&config, &options, hosts)
    }

    /// Each server has a resolver of its own: of several in one, the first to refuse would have spoken for all.
    fn asking(config: &ResolverConfig, options: &ResolverOpts, hosts: Hosts) -> anyhow::Result<Self> {
        let mut options = options.clone();
        options.timeout = SERVER_TIMEOUT;
        options.attempts = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        // A receiver that moves, or was away for a moment, is to be found: what is remembered, the servers remember.
        options.cache_size = 0;
        let resolver = |server: &NameServerConfig| {
            let (domain, search) = (config.domain().cloned(), config.search().to_vec());
            let config = ResolverConfig::from_parts(domain, search, vec![server.clone()]);
            let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.with_options(options.clone()).build()
        };
        let servers = config.name_servers().iter().take(MAX_SERVERS).map(resolver);
        Ok(Self { hosts: Arc::new(hosts), servers: servers.collect::<Result<_, _>>()? })
    }

    /// The addresses of a name, those of IPv4 first.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        // A URL's host is ASCII; with what is no name by the letter, as an underscore, some are found all the same.
        let parsed =
            Name::from_ascii(name).map_err(|error| Unresolved(format!("{name:?} is no name: {error}")))?;
        let of_hosts = self.in_hosts(&parsed);
        if !of_hosts.is_empty() {
            return Ok(of_hosts);
        }
        let mut refusal = String::new();
        for server in &self.servers {
            match tokio::time::timeout(SERVER_TIMEOUT, server.lookup_ip(parsed.clone())).await {
                Ok(Ok(found)) => return Ok(found.iter().collect()),
                Ok(Err(error)) if error.is_no_records_found() => {
                    return Err(Unresolved(format!("{name} has no address")));
                }
                Ok(Err(error)) => refusal = error.to_string(),
                Err(_) => refusal = "the name server does not answer".to_owned(),
            }
        }
        Err(Unresolved(format!("{name} cannot be resolved: {refusal}")))
    }

    fn in_hosts(&self, name: &Name) -> Vec<IpAddr> {
        let of_type = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of_type);
        let addresses = |lookup: hickory_resolver::lookup::Lookup| {
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

    fn names(servers: Vec<NameServerConfig>) -> Names {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(&b"127.0.0.9 well.of-the-file\n"[..]).unwrap();
        let config = ResolverConfig::from_name_servers(servers);
        Names::asking(&config, &ResolverOpts::default(), hosts).unwrap()
    }

    #[tokio::test]
    async fn hundreds_of_names_whose_servers_are_silent_keep_no_other_waiting() {
        raise_open_files();
        let (server, asked) = name_server(Others::DoNotExist).await;
        let names = names(vec![server]);
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
    async fn a_server_that_refuses_or_is_silent_leaves_it_to_the_next_and_one_that_knows_does_not() {
        for first in [Others::AreNotAskedHere, Others::GetNoAnswer] {
            let (first, _) = name_server(first).await;
            let (second, asked) = name_server(Others::DoNotExist).await;
            let names = names(vec![first, second]);
            assert_eq!(names.addresses("well.example").await.unwrap(), ADDRESSES);
            assert_eq!(asked.load(Ordering::SeqCst), 0, "the first knows it");
            let begun = Instant::now();
            let error = names.addresses("nobody.example").await.unwrap_err();
            assert_eq!(error.to_string(), "nobody.example has no address", "so says the second");
            assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
        }
    }

    #[tokio::test]
    async fn nothing_is_remembered_and_hosts_are_not_asked_for() {
        let (server, asked) = name_server(Others::DoNotExist).await;
        let names = names(vec![server]);
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
        let names = Names::configured("search corp.example\n", Hosts::default()).unwrap();
        assert_eq!(names.servers.len(), 1);
        let five = (1..=5).map(|host| format!("nameserver 127.0.0.{host}\n")).collect::<String>();
        assert_eq!(Names::configured(&five, Hosts::default()).unwrap().servers.len(), MAX_SERVERS);
        let error = Names::configured("nameserver 127.0.0.1\nsearch a..b\n", Hosts::default()).unwrap_err();
        assert!(error.to_string().starts_with("/etc/resolv.conf cannot be used"), "{error}");
    }
}
