//! Names, resolved as this machine's files say: `/etc/hosts`, and the name servers of `/etc/resolv.conf`.
//!
//! The system's own resolver has a thread wait for each name, and a process has some hundreds of them: names whose
//! servers are silent would keep all others from being resolved. Here nothing but the one who asks waits.

use std::net::{IpAddr, Ipv4Addr};

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};

/// Resolves names, and remembers them as long as their servers allow. Clones share what they know.
#[derive(Clone)]
pub struct Names(TokioResolver);

/// A name leads nowhere, or nobody says where.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// There is no such name, or it has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// The name servers do not say; the same question may be answered later.
    #[error("{0} cannot be resolved: {1}")]
    NoAnswer(String, String),
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    /// Names as this machine knows them. Where no name server is configured, the machine itself is asked.
    pub fn of_this_machine() -> anyhow::Result<Self> {
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "no name servers are configured; this machine is asked for names");
            let own = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            let config = ResolverConfig::from_name_servers(vec![own]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        });
        Self::built(builder)
    }

    fn built(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> anyhow::Result<Self> {
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Ok(Self(builder.build()?))
    }

    /// The addresses of a name, those of IPv4 first: a machine that has no way to the others has them all the same.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        match self.0.lookup_ip(name).await {
            Ok(found) => {
                let mut addresses: Vec<IpAddr> = found.iter().collect();
                addresses.sort_by_key(IpAddr::is_ipv6);
                Ok(addresses)
            }
            Err(error) if error.is_no_records_found() => Err(Unresolved::NoAddress(name.to_owned())),
            Err(error) => Err(Unresolved::NoAnswer(name.to_owned(), error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use hickory_resolver::config::{ConnectionConfig, ResolverOpts};
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record, RecordType};
    use tokio::net::UdpSocket;

    use super::*;
    use crate::service::raise_open_files;

    const WELL: &str = "well.example";
    const ADDRESSES: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];

    /// A name server that knows one name, keeps silent about those that begin with `silent`, and says of others that
    /// they do not exist.
    async fn name_server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let mut answer = Message::from_vec(&question[..length]).unwrap().into_response();
                let asked = answer.queries[0].clone();
                let name = asked.name().to_ascii();
                if name.starts_with("silent") {
                    continue;
                }
                if name.trim_end_matches('.') != WELL {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                let address = match asked.query_type() {
                    RecordType::A => RData::from(ADDRESSES[0]),
                    _ => RData::from(ADDRESSES[1]),
                };
                if answer.metadata.response_code == ResponseCode::NoError {
                    answer.add_answer(Record::from_rdata(asked.name().clone(), 60, address));
                }
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        address
    }

    async fn names() -> Names {
        let asked = name_server().await;
        let mut connection = ConnectionConfig::udp();
        connection.port = asked.port();
        let server = NameServerConfig::new(asked.ip(), true, vec![connection]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let mut options = ResolverOpts::default();
        options.timeout = Duration::from_secs(30);
        Names::built(builder.with_options(options)).unwrap()
    }

    #[tokio::test]
    async fn thousands_of_names_whose_servers_are_silent_keep_no_other_waiting() {
        raise_open_files();
        let names = names().await;
        let silent: Vec<_> = (0..2_000)
            .map(|number| {
                let names = names.clone();
                tokio::spawn(async move { names.addresses(&format!("silent-{number}.example")).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asked = Instant::now();
        assert_eq!(names.addresses(WELL).await.unwrap(), ADDRESSES);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert!(silent.iter().all(|silent| !silent.is_finished()), "the others wait still");
    }

    #[tokio::test]
    async fn who_asks_for_a_name_that_leads_nowhere_is_told_so() {
        let names = names().await;
        let error = names.addresses("nobody.example").await.unwrap_err();
        assert_eq!(error.to_string(), "nobody.example has no address");
    }

    #[tokio::test]
    async fn this_machine_is_known_by_its_files() {
        let names = Names::of_this_machine().unwrap();
        assert!(names.addresses("localhost").await.unwrap().contains(&Ipv4Addr::LOCALHOST.into()));
    }
}
