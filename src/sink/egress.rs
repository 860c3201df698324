//! Where events may be sent: to public addresses only, whatever a name resolves to at the moment of connecting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::planted;

/// Why nothing is sent there.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Blocked {
    /// Only https, and http where private addresses are allowed.
    #[error("the address must start with https://")]
    Scheme,
    /// A user name or password in an address is a way to hide the host.
    #[error("the address must not hold a user name or password")]
    Userinfo,
    /// Loopback, private, or reserved for something else.
    #[error("blocked by the egress rule: the address is not a public one")]
    NotPublic,
}

/// The egress rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Whether private and loopback addresses, and plain http, are allowed.
    pub allow_private: bool,
}

impl Egress {
    /// Checks an address before each attempt. Names are checked once more when they are resolved.
    ///
    /// # Errors
    /// [`Blocked`] says why nothing is sent there.
    pub fn check(self, url: &Url) -> Result<(), Blocked> {
        let http = url.scheme() == "http" && self.allows_private();
        if url.scheme() != "https" && !http {
            return Err(Blocked::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Blocked::Userinfo);
        }
        // The parser has already turned decimal, octal and hexadecimal forms into addresses.
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err(Blocked::NotPublic),
        };
        if literal.is_none_or(|address| self.allows(address)) { Ok(()) } else { Err(Blocked::NotPublic) }
    }

    fn allows(self, address: IpAddr) -> bool {
        self.allows_private() || is_public(address)
    }

    fn allows_private(self) -> bool {
        self.allow_private || planted::is(planted::Fault::AnyAddress)
    }
}

/// Resolves a name, and refuses it when any of its addresses is not a public one.
#[derive(Clone, Copy, Debug)]
pub struct Guarded<R> {
    /// The rule.
    pub egress: Egress,
    /// Who knows the addresses.
    pub resolver: R,
}

impl<R: Resolve> Resolve for Guarded<R> {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, found) = (self.egress, self.resolver.resolve(name));
        Box::pin(async move {
            let found: Vec<SocketAddr> = found.await?.collect();
            if found.iter().any(|address| !egress.allows(address.ip())) {
                return Err(Blocked::NotPublic.into());
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// The machine's own resolver.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// Whether an address is one of the public internet's. Everything else is somebody's inside (IANA's special-purpose
/// registries, RFC 6890 and its followers).
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = match (a, b, c) {
        (0 | 10 | 127 | 224.., _, _)     // this network, private, loopback, multicast and reserved
        | (169, 254, _)                  // link-local: the clouds' metadata
        | (192, 168, _)                  // private
        | (192, 0, 0 | 2)                // protocol assignments, documentation
        | (192, 88, 99)                  // 6to4 relays
        | (198, 51, 100)                 // documentation
        | (203, 0, 113) => true,         // documentation
        (100, b, _) => (64..128).contains(&b), // carrier-grade NAT
        (172, b, _) => (16..32).contains(&b),  // private
        (198, b, _) => b == 18 || b == 19,     // benchmarks
        _ => false,
    };
    !reserved
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3; NAT64, mapped, unique-local, link-local and multicast lie outside it.
    let global = a & 0xe000 == 0x2000;
    let special = match a {
        // protocol assignments (Teredo, ORCHID), documentation
        0x2001 => b < 0x0200 || b == 0x0db8,
        // 6to4: carries any IPv4 address
        0x2002 => true,
        // documentation
        0x3fff => b < 0x1000,
        _ => false,
    };
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: Egress = Egress { allow_private: false };

    #[test]
    fn only_public_addresses_are_public() {
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn every_way_to_write_an_inner_address_is_seen_through() {
        for hidden in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://127.0.0.1./",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[64:ff9b::10.0.0.1]/",
            "https://[2002:7f00:1::]/",
            "https://①②⑦.0.0.1/",
            "https://%31%32%37.0.0.1/",
            "https://0/",
            "https://169.254.169.254/latest/",
            "https://3232235777/",
        ] {
            let url = Url::parse(hidden).unwrap();
            assert_eq!(CLOSED.check(&url), Err(Blocked::NotPublic), "{hidden}");
        }
        for (hidden, why) in [
            ("http://example.com/", Blocked::Scheme),
            ("ftp://example.com/", Blocked::Scheme),
            ("https://example.com@127.0.0.1/", Blocked::Userinfo),
            ("https://user:pass@example.com/", Blocked::Userinfo),
        ] {
            assert_eq!(CLOSED.check(&Url::parse(hidden).unwrap()), Err(why), "{hidden}");
        }
        assert_eq!(CLOSED.check(&Url::parse("https://example.com/hook?a=1").unwrap()), Ok(()));
        let open = Egress { allow_private: true };
        assert_eq!(open.check(&Url::parse("http://127.0.0.1:9/hook").unwrap()), Ok(()));
        assert_eq!(open.check(&Url::parse("ftp://127.0.0.1/").unwrap()), Err(Blocked::Scheme));
    }
}
