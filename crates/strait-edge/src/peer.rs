//! Who is at the other end of a connection to an entry: a visitor, or a proxy that passes
//! visitors on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;
use ipnet::IpNet;

/// The proxies before an entry that are believed about whom they pass on; none by default.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Trusts every address of these networks.
    pub fn new(networks: Vec<IpNet>) -> TrustedProxies {
        TrustedProxies(networks.into())
    }

    /// Whether there is none.
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is the address of a trusted proxy.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The other end of a connection, as every request on it needs it.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The address without its port, for a field.
    pub(crate) text: HeaderValue,
    /// What its forwarding fields say is believed.
    pub(crate) trusted: bool,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr, trusted: &TrustedProxies) -> Peer {
        let address = canonical(address);
        let text = HeaderValue::from_str(&address.ip().to_string());
        let text = text.expect("an address is visible ASCII");
        Peer { address, text, trusted: trusted.contains(address.ip()) }
    }
}

/// The same address, of IPv4 also when it came to a socket of IPv6 (RFC 4291 2.5.5.2).
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
