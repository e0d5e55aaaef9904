//! Which addresses deliveries may go to: not into the networks that Cuewire itself stands in.
//!
//! The same judgement when a webhook is saved and, for the address really connected to, every time a
//! request is sent (a name may resolve to something else by then). Ranges are those of the IANA special
//! registries; an IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) is judged as itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

const MAX_URL_BYTES: usize = 2_048;

/// Never opened by configuration: link-local addresses and the metadata services of clouds, which hand out
/// credentials to whoever asks from inside.
const NEVER: [&str; 6] = [
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::/32",
    "fd20:ce::/32",
    "100.100.100.200/32",
    "168.63.129.16/32",
];

/// Opened only by configuration.
const PRIVATE: [&str; 24] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fec0::/10",
    "ff00::/8",
];

/// What is said of an address that is not permitted, to be read after it.
pub const FORBIDDEN: &str = "an address in a private or reserved range, where deliveries may not go";

/// Decides where deliveries may go.
#[derive(Debug, Clone)]
pub struct Guard {
    never: Vec<IpNet>,
    private: Vec<IpNet>,
    allowed: Vec<IpNet>,
}

impl Default for Guard {
    fn default() -> Self {
        Self::allowing(Vec::new())
    }
}

impl Guard {
    /// A guard that opens these networks, unless they are never opened.
    #[must_use]
    pub fn allowing(allowed: Vec<IpNet>) -> Self {
        let parse = |nets: &[&str]| -> Vec<IpNet> {
            nets.iter().map(|net| net.parse().expect("a constant of this file")).collect()
        };
        Self { never: parse(&NEVER), private: parse(&PRIVATE), allowed }
    }

    /// Reads `CUEWIRE_ALLOWED_NETWORKS`: networks such as `10.0.0.0/8`, separated by commas.
    pub fn read(text: &str) -> Result<Self, String> {
        let parse = |net: &str| {
            net.trim()
                .parse::<IpNet>()
                .map_err(|_| format!("has {net:?}, and a network is such as 10.1.0.0/16"))
        };
        Ok(Self::allowing(text.split(',').map(parse).collect::<Result<_, _>>()?))
    }

    /// Whether a request may go to this address.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        !within(&self.never) && (!within(&self.private) || within(&self.allowed))
    }

    /// Whether deliveries may go to this URL, as far as its text tells; a name is judged by the addresses
    /// it resolves to. The error is a sentence to be read after the field's name.
    pub fn check_url(&self, text: &str) -> Result<Url, String> {
        if text.len() > MAX_URL_BYTES {
            return Err(format!("is {} bytes, and at most {MAX_URL_BYTES} are accepted", text.len()));
        }
        let url: Url = text.parse().map_err(|error| format!("is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("has the scheme {:?}, and must be http or https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user name or password; set a header of the webhook instead".to_owned());
        }
        let address = match url.host() {
            None => return Err("has no host".to_owned()),
            Some(Host::Domain(_)) => None,
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        };
        match address {
            Some(address) if !self.permits(address) => Err(format!("leads to {address}, {FORBIDDEN}")),
            _ => Ok(url),
        }
    }

    /// The first of the addresses that deliveries may not go to. Those that a name resolves to are not for
    /// a tenant to know: they tell what stands in the operator's network.
    #[must_use]
    pub fn first_forbidden(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Option<IpAddr> {
        addresses.into_iter().find(|address| !self.permits(*address))
    }
}

/// The IPv4 address that an IPv6 one stands for, in any of its forms.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [.., c, d] = v6.segments();
    let last = || Ipv4Addr::from((u32::from(c) << 16) | u32::from(d));
    match v6.segments() {
        // ::ffff:a.b.c.d, ::ffff:0:a.b.c.d and 64:ff9b::a.b.c.d: mapped, translated, NAT64
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            IpAddr::V4(last())
        }
        // 2002:a.b.c.d::, 6to4
        [0x2002, a, b, ..] => IpAddr::V4(Ipv4Addr::from((u32::from(a) << 16) | u32::from(b))),
        // ::a.b.c.d, long deprecated; :: and ::1 are themselves
        [0, 0, 0, 0, 0, 0, ..] if v6 != Ipv6Addr::LOCALHOST && v6 != Ipv6Addr::UNSPECIFIED => {
            IpAddr::V4(last())
        }
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_refused_in_every_form() {
        let guard = Guard::default();
        for url in [
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://017700000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://%31%32%37.0.0.1/",
            "http://①②⑦。0.0.1/",
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:0:127.0.0.1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::10.0.0.1]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[64:ff9b:1::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://[2002:a00:1::1]/",
            "http://[2001:0:1::]/",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
            "http://169.254.169.254/latest",
            "http://100.64.0.1/",
            "http://0.0.0.0/",
            "http://255.255.255.255/",
        ] {
            let error = guard.check_url(url).unwrap_err();
            assert!(error.contains("private or reserved"), "{url}: {error}");
        }
        for url in ["http://93.184.216.34/", "https://[2606:2800:220:1::1]/x", "https://example.com/hook"] {
            guard.check_url(url).unwrap();
        }
    }

    #[test]
    fn a_bad_url_is_refused_with_a_sentence() {
        for (url, sentence) in [
            ("", "is not a URL"),
            ("/hook", "is not a URL"),
            ("http://", "is not a URL: empty host"),
            ("ftp://example.com/", "has the scheme \"ftp\", and must be http or https"),
            ("file:///etc/passwd", "has the scheme \"file\""),
            ("http://user:password@example.com/", "holds a user name or password"),
            ("http://user@example.com/", "holds a user name or password"),
        ] {
            let error = Guard::default().check_url(url).unwrap_err();
            assert!(error.contains(sentence), "{url}: {error}");
        }
        let long = format!("http://example.com/{}", "x".repeat(2_048));
        assert!(Guard::default().check_url(&long).unwrap_err().contains("at most 2048"));
    }

    #[test]
    fn configuration_opens_private_ranges_but_never_metadata() {
        let guard = Guard::read("127.0.0.0/8, ::1/128,169.254.0.0/16,0.0.0.0/0").unwrap();
        guard.check_url("http://127.0.0.1:9000/").unwrap();
        guard.check_url("http://[::ffff:127.0.0.1]:9000/").unwrap();
        guard.check_url("http://[::1]/").unwrap();
        for url in [
            "http://169.254.169.254/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fd20:ce::254]/",
            "http://168.63.129.16/",
            "http://100.100.100.200/",
        ] {
            guard.check_url(url).unwrap_err();
        }
        assert!(Guard::read("10.0.0.0/33").unwrap_err().contains("10.1.0.0/16"));
    }
}
