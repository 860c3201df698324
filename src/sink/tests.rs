//! Hostile addresses against a canary that listens wherever this machine can be reached from itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use reqwest::dns::{Addrs, Name, Resolving};

use super::*;

const CLOSED: Egress = Egress { allow_private: false };
const OPEN: Egress = Egress { allow_private: true };

/// Who connects here was let through.
struct Canary(TcpListener);

impl Canary {
    fn listen() -> Self {
        let everywhere = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0));
        let listener = everywhere.or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn called(&self) -> bool {
        self.0.accept().is_ok()
    }
}

/// A resolver that somebody else commands: a name is a list of the addresses it resolves to.
struct Hostile;

impl Resolve for Hostile {
    fn resolve(&self, name: Name) -> Resolving {
        let found: Vec<_> = match name.as_str().split_once(".to.") {
            Some((listed, _)) => {
                listed.split('_').map(|hex| u128::from_str_radix(hex, 16).unwrap()).map(address).collect()
            }
            None => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
        };
        let addresses: Addrs = Box::new(found.into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

fn address(bits: u128) -> SocketAddr {
    let ip =
        u32::try_from(bits).map_or_else(|_| Ipv6Addr::from_bits(bits).into(), |v4| IpAddr::V4(Ipv4Addr::from_bits(v4)));
    SocketAddr::new(ip, 0)
}

/// The ways to write one IPv4 address as a host.
fn written(address: Ipv4Addr) -> Vec<String> {
    let ([a, b, c, d], bits) = (address.octets(), address.to_bits());
    let (high, low) = (bits >> 16, bits & 0xffff);
    let digits = |zero: u32| -> String {
        let shifted = |digit: char| digit.to_digit(10).and_then(|digit| char::from_u32(zero + digit)).unwrap_or(digit);
        address.to_string().chars().map(shifted).collect()
    };
    vec![
        format!("{address}"),
        format!("{address}."),
        format!("{bits}"),
        format!("{bits:#010x}"),
        format!("{bits:#X}"),
        format!("0{bits:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("000{a:o}.000{b:o}.000{c:o}.000{d:o}"),
        format!("{a}.{}", bits & 0x00ff_ffff),
        format!("{a}.{b}.{low}"),
        format!("{a:#x}.0{b:o}.{low}"),
        format!("{a}%2e{b}%2E{c}.{d}"),
        format!(
            "%{}",
            hex::encode(address.to_string())
                .as_bytes()
                .chunks(2)
                .map(String::from_utf8_lossy)
                .collect::<Vec<_>>()
                .join("%")
        ),
        digits(0xff10),
        digits(0x1d7d8),
        format!("{a}\u{3002}{b}\u{ff0e}{c}\u{ff61}{d}"),
        format!("{a}.{b}\u{ad}.{c}.{d}"),
        format!("{a}.{b}.\t{c}.\n{d}"),
        format!("[::ffff:{address}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[0:0:0:0:0:FFFF:{high:X}:{low:X}]"),
        format!("[::{address}]"),
        format!("[::ffff:0:{address}]"),
        format!("[64:ff9b::{address}]"),
        format!("[64:ff9b:1::{address}]"),
        format!("[2002:{high:x}:{low:x}::]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[2001:0:{high:x}:{low:x}::1]"),
        format!("[fe80::5efe:{address}]"),
        format!("[::ffff:{address}%25lo]"),
        format!("public.example@{address}"),
        format!("public.example:secret@{address}"),
        format!("public.example%40@{address}"),
    ]
}

/// Addresses as somebody would hand them to us.
fn hostile(port: u16) -> Vec<String> {
    let mut hosts: Vec<String> =
        [[127, 0, 0, 1], [127, 0, 0, 53], [0, 0, 0, 0]].into_iter().flat_map(|octets| written(octets.into())).collect();
    hosts.extend(
        [
            "localhost",
            "LocalHost",
            "localhost.",
            "a.localhost",
            "localhost.localdomain",
            "ip6-localhost",
            "\u{ff4c}ocalhost",
            "[::1]",
            "[::]",
            "[0000:0000:0000:0000:0000:0000:0000:0001]",
            "[::1%25lo]",
            "[::1%lo]",
            "[fe80::1%25eth0]",
            "[fe80::1]",
            "[fec0::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
            "10.0.0.1",
            "100.100.100.200",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "metadata.internal",
        ]
        .map(str::to_owned),
    );
    // Names, resolved to inner addresses only, and to an inner one behind a public one.
    for inner in
        ["7f000001", "0", "a9fea9fe", "0a000001", "64400001", "1", "ffff7f000001", "64ff9b00000000000000007f000001"]
    {
        hosts.push(format!("{inner}.to.attacker.example"));
        hosts.push(format!("{inner}.to.attacker.example."));
        hosts.push(format!("08080808_{inner}.to.attacker.example"));
    }
    let ways = hosts
        .into_iter()
        .flat_map(|host| [format!("https://{host}:{port}/hook"), format!("http://{host}:{port}/hook")]);
    let odd = [
        "https:127.0.0.1",
        "https:\\\\127.0.0.1",
        "https:///127.0.0.1",
        " https://127.0.0.1",
        "HTTPS://127.0.0.1",
        "ftp://127.0.0.1",
    ];
    ways.chain(odd.map(|start| format!("{start}:{port}/hook"))).collect()
}

fn message() -> Message<'static> {
    Message {
        id: "evt_1",
        timestamp_s: 1_795_428_000,
        body: b"{}".to_vec(),
        content_type: None,
        provider_signature: None,
    }
}

#[tokio::test]
async fn no_hostile_address_brings_one_packet_to_the_canary() {
    let canary = Canary::listen();
    let sink = Sink::resolving(CLOSED, Hostile).unwrap();
    let addresses = hostile(canary.port());
    assert!(addresses.len() >= 250, "{}", addresses.len());
    for hostile in addresses {
        // What is no address at all is refused where it comes in.
        let Ok(url) = Url::parse(&hostile) else { continue };
        let attempt = sink.send(&url, None, message()).await;
        let refusals =
            [Blocked::Scheme, Blocked::Userinfo, Blocked::NotPublic].map(|why| failed(None, why.to_string()));
        assert!(refusals.contains(&attempt), "{hostile}: {attempt:?}");
        assert!(!canary.called(), "{hostile} reached the canary");
    }
    // The canary sings when it is reached, and by such a name too.
    let url = Url::parse(&format!("http://7f000001.to.me.example:{}/", canary.port())).unwrap();
    let sink = Sink::resolving(OPEN, Hostile).unwrap();
    let (_sent, ()) =
        tokio::join!(tokio::time::timeout(Duration::from_millis(1), sink.send(&url, None, message())), async {
            while !canary.called() {
                tokio::task::yield_now().await;
            }
        });
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_looked_at_each_time() {
    let resolver = Guarded { egress: CLOSED, resolver: Hostile };
    assert!(resolver.resolve("08080808.to.me.example".parse().unwrap()).await.is_ok());
    let error = resolver.resolve("7f000001.to.me.example".parse().unwrap()).await.err().unwrap();
    assert_eq!(error.downcast_ref(), Some(&Blocked::NotPublic));
    let system = Guarded { egress: CLOSED, resolver: System };
    assert!(system.resolve("localhost".parse().unwrap()).await.is_err());
    assert!(Guarded { egress: OPEN, ..system }.resolve("localhost".parse().unwrap()).await.is_ok());
}

#[tokio::test]
async fn a_redirect_is_not_followed_wherever_it_leads() {
    let canary = Canary::listen();
    let sink = Sink::new(OPEN).unwrap();
    for status in [300, 301, 302, 303, 304, 307, 308] {
        for location in [format!("http://127.0.0.1:{}/", canary.port()), format!("//localhost:{}/", canary.port())] {
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
            let redirect = async {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let (mut connection, _) = listener.accept().await.unwrap();
                let _read = connection.read(&mut [0; 4_096]).await.unwrap();
                let answer = format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
                connection.write_all(answer.as_bytes()).await.unwrap();
            };
            let (sent, ()) = tokio::join!(sink.send(&url, None, message()), redirect);
            assert!(
                matches!(sent, Attempt::Failed { status: Some(known), .. } if known == status),
                "{status}: {sent:?}"
            );
            assert!(!canary.called(), "{status} to {location}");
        }
    }
}
