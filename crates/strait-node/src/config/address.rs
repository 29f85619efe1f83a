//! Addresses that are listened on, and the server that a client dials.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::value::clip;

/// How a listening address is read.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// The interface when only a port is given.
    pub bare: IpAddr,
    /// Whether port 0 (any free port) is taken.
    pub zero: bool,
}

impl Listen {
    /// A port for the world: a bare number means every interface.
    pub const PUBLIC: Listen = Listen { bare: IpAddr::V4(Ipv4Addr::UNSPECIFIED), zero: false };
    /// A port for this machine: a bare number means loopback.
    pub const LOCAL: Listen = Listen { bare: IpAddr::V4(Ipv4Addr::LOCALHOST), zero: false };

    /// The same, with port 0 allowed.
    #[must_use]
    pub fn or_any_port(self) -> Listen {
        Listen { zero: true, ..self }
    }

    /// Reads `8080`, `:8080`, `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(self, text: &str) -> Result<SocketAddr, String> {
        let allowed = "write a port, IP:port or localhost:port, like \"8080\" or \
                       \"127.0.0.1:8080\"";
        let wrong = |why: &str| Err(format!("{:?} {why}; {allowed}", clip(text)));
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port),
            None => ("", text),
        };
        let ip = match host {
            "" => self.bare,
            "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => {
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let ip = match bare {
                    Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                    None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                };
                let Some(ip) = ip else {
                    return wrong("does not name an interface of this machine by its IP address");
                };
                ip
            }
        };
        let Ok(number) = port.parse::<i64>() else { return wrong("has no port number") };
        let least = u16::from(!self.zero);
        match u16::try_from(number) {
            Ok(port) if port >= least => Ok(SocketAddr::new(ip, port)),
            _ => Err(format!("port {} is out of range; allowed: {least} to 65535", clip(port))),
        }
    }
}

/// The server that a client dials: `https://host[:port]`, or `http://` for clear text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// Whether the tunnel is encrypted.
    pub tls: bool,
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// TCP port; 443 or 80 when the URL named none.
    pub port: u16,
}

impl ServerUrl {
    /// `host:port`, with brackets around IPv6.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether the host is this machine, as far as its name tells.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl std::str::FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<ServerUrl, String> {
        let allowed = "write https://HOST:PORT, as the server prints it";
        let shown = clip(text);
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("{shown:?} has no scheme; {allowed} (https://{shown} ?)"));
        };
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(format!("{shown:?}: {scheme}:// is not possible here; {allowed}")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(format!("{shown:?} has a path; {allowed}, without a path"));
        }
        if authority.contains('@') {
            return Err(format!(
                "a user name in the URL is not used; {allowed}, and give the token with --token"
            ));
        }
        let parsed: http::uri::Authority =
            authority.parse().map_err(|_| format!("{shown:?} names no valid host; {allowed}"))?;
        let host = parsed.host().trim_matches(['[', ']']).to_ascii_lowercase();
        if host.is_empty() {
            return Err(format!("{shown:?} names no host; {allowed}"));
        }
        let named = authority.rsplit_once(':').map(|(_, port)| port);
        let port = match (parsed.port_u16(), named) {
            (Some(0), _) => None,
            (Some(port), _) => Some(port),
            (None, Some(text)) if !text.contains(']') => None,
            (None, _) => Some(if tls { 443 } else { 80 }),
        };
        let port = port.ok_or(format!("{shown:?} has a bad port; allowed: 1 to 65535"))?;
        Ok(ServerUrl { tls, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_addresses_are_read_in_their_short_forms() {
        let public = |text| Listen::PUBLIC.parse(text).map(|address| address.to_string());
        for (text, expected) in [
            ("8080", "0.0.0.0:8080"),
            (":8080", "0.0.0.0:8080"),
            ("*:8080", "0.0.0.0:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(public(text).as_deref(), Ok(expected));
        }
        assert_eq!(Listen::LOCAL.parse("80").map(|a| a.to_string()).as_deref(), Ok("127.0.0.1:80"));
        assert!(Listen::LOCAL.or_any_port().parse("0").is_ok());
        for bad in ["abc", "70000", "0", "-1", "", "example.org:80", "::1:80", "http://x:80"] {
            assert!(public(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_is_named_by_scheme_host_and_port_only() {
        for (text, expected) in [
            ("https://a.example:7443", "https://a.example:7443"),
            ("https://A.example/", "https://a.example:443"),
            ("http://127.0.0.1", "http://127.0.0.1:80"),
            ("https://[::1]:7443", "https://[::1]:7443"),
            ("https://[::1]", "https://[::1]:443"),
        ] {
            assert_eq!(
                text.parse::<ServerUrl>().map(|url| url.to_string()).as_deref(),
                Ok(expected)
            );
        }
        for bad in [
            "a.example:7443",
            "https://",
            "https://a/path",
            "https://a?x",
            "ftp://a",
            "https://u@a",
            "https://a:0",
            "https://a:70000",
            "https://a:",
            "https://a b",
            "",
        ] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad}");
        }
    }
}
