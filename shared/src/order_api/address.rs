//! The hosts and addresses to which reconciliation may connect.
//!
//! A host comes from a secret, and a secret may be written by somebody who must not reach this account's network. So a
//! host is a public DNS name that fits the provider, and a name that resolves to a private address is not connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::{io, vec};

use hyper_util::client::legacy::connect::dns::Name;
use lambda_http::tower::util::ServiceFn;

use super::ApiError;

/// The names under which no public host is found.
const PRIVATE_NAMES: [&str; 9] = [
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "arpa",
];

/// A public DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// Reads the name of a host of any domain.
    ///
    /// # Errors
    /// If `name` is an address, has a port or a path, or is not a public DNS name in ASCII. The error does not quote it.
    pub fn public(name: &str) -> Result<Self, ApiError> {
        let name = name.to_ascii_lowercase();
        let is_label = |label: &str| {
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(is_plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let labels: Vec<&str> = name.split('.').collect();
        let last = labels.last().copied().unwrap_or_default();
        // The last label of an address is a number.
        let is_domain =
            last.starts_with("xn--") || last.len() > 1 && last.bytes().all(|byte| byte.is_ascii_lowercase());
        let is_public = labels.len() > 1 && is_domain && !PRIVATE_NAMES.contains(&last);
        if is_public && name.len() <= 253 && labels.iter().all(|label| is_label(label)) {
            Ok(Self(name))
        } else {
            Err(ApiError::misconfigured(
                "the host in the secret is not a public host name",
            ))
        }
    }

    /// Reads the name of a host in `domain`.
    ///
    /// # Errors
    /// If `name` is not a public DNS name, or is in another domain.
    pub fn in_domain(name: &str, domain: &str) -> Result<Self, ApiError> {
        let host = Self::public(name)?;
        let is_inside = host.0 == domain || host.0.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        if is_inside {
            Ok(host)
        } else {
            Err(ApiError::misconfigured("the host in the secret is not the provider's"))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which addresses a connection may be made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Public addresses.
    Public,
    /// Any address, for a base URL that an operator has set.
    Any,
}

type Resolving = Pin<Box<dyn Future<Output = io::Result<vec::IntoIter<SocketAddr>>> + Send>>;

/// A resolver of names that returns only the addresses that may be connected to.
pub(super) type Resolver = ServiceFn<fn(Name) -> Resolving>;

pub(super) fn resolver(reach: Reach) -> Resolver {
    lambda_http::service_fn(match reach {
        Reach::Public => resolve_public,
        Reach::Any => resolve_any,
    })
}

fn resolve_public(name: Name) -> Resolving {
    Box::pin(async move { only_public(resolve(name).await?).map(Vec::into_iter) })
}

fn resolve_any(name: Name) -> Resolving {
    Box::pin(async move { Ok(resolve(name).await?.into_iter()) })
}

async fn resolve(name: Name) -> io::Result<Vec<SocketAddr>> {
    // The connector replaces the port.
    let addresses = move || std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), 0)).map(Iterator::collect);
    tokio::task::spawn_blocking(addresses).await.map_err(io::Error::other)?
}

fn only_public(mut addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let all = addresses.len();
    addresses.retain(|address| is_public(address.ip()));
    if addresses.is_empty() && all > 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the host has only private addresses",
        ));
    }
    Ok(addresses)
}

/// Whether an address is reached over the internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_special = match first {
        // This network, private, loopback; multicast, reserved and broadcast.
        0 | 10 | 127 | 224..=255 => true,
        // Carrier-grade NAT.
        100 => (64..128).contains(&second),
        // Link-local, with the metadata of machines.
        169 => second == 254,
        172 => (16..32).contains(&second),
        // Private, protocol assignments, documentation, 6to4 relays.
        192 => second == 168 || second == 0 && matches!(third, 0 | 2) || second == 88 && third == 99,
        // Benchmarks and documentation.
        198 => matches!(second, 18 | 19) || second == 51 && third == 100,
        203 => second == 0 && third == 113,
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let [first, second, third, fourth, fifth, sixth, high, low] = address.segments();
    // NAT64 carries an address of version 4.
    if [first, second, third, fourth, fifth, sixth] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    let is_global = (0x2000..0x4000).contains(&first);
    let is_special = match (first, second) {
        // 6to4.
        (0x2002, _) => true,
        // Protocol assignments and documentation.
        (0x2001, second) => second < 0x200 || second == 0xdb8,
        (0x3fff, second) => second < 0x1000,
        _ => false,
    };
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_public_name() {
        for name in [
            "shop.example.com",
            "SHOP.example.com",
            "my-shop.com.ua",
            "xn--e1afmkfd.xn--p1ai",
        ] {
            assert!(Host::public(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "localhost",
            "shop",
            "shop.local",
            "db.internal",
            "127.0.0.1",
            "1.2.3.4",
            "2130706433",
            "0x7f.1",
            "[::1]",
            "::1",
            "shop.example.com:8080",
            "shop.example.com/x",
            "user@shop.example.com",
            "a..com",
            ".com",
            "shop.example.com.",
            "-a.com",
            "a-.com",
            "shop.example.c",
            "shop.exa mple.com",
            "мой.рф",
            "a.com#",
            "a.com?",
            "169.254.169.254",
            "a.com\\b.com",
        ] {
            assert!(Host::public(name).is_err(), "{name}");
        }
        assert!(Host::public(&format!("{}.com", "a.".repeat(130))).is_err());
    }

    #[test]
    fn a_host_of_another_domain_is_refused() {
        for name in ["api.selldone.com", "selldone.com", "API.Selldone.com"] {
            assert!(Host::in_domain(name, "selldone.com").is_ok(), "{name}");
        }
        for name in [
            "selldone.com.evil.com",
            "evilselldone.com",
            "example.com",
            "selldone.com:1",
            "com",
        ] {
            let error = Host::in_domain(name, "selldone.com").expect_err(name).to_string();
            assert!(!error.contains(name), "{error}");
        }
    }

    #[test]
    fn private_addresses_are_not_public() {
        for public in [
            "8.8.8.8",
            "52.29.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.1.1",
            "198.17.0.1",
            "2a00:1450:4001::1",
            "2600::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.0.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "100::1",
        ] {
            assert!(!is_public(private.parse().expect(private)), "{private}");
        }
    }

    #[test]
    fn only_the_public_addresses_of_a_name_are_used() {
        let addresses = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect::<Vec<_>>()
        };
        let mixed = addresses(&["10.0.0.1:0", "8.8.8.8:0"]);
        assert_eq!(only_public(mixed).expect("one is public"), addresses(&["8.8.8.8:0"]));
        assert!(only_public(addresses(&["127.0.0.1:0", "[::1]:0"])).is_err());
    }
}
