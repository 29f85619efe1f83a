//! Addresses of backends, and connecting to them.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use strait_engine::{Fault, Reason};
use tokio::net::{TcpStream, UnixStream};

use crate::io::{Conn, Stream};
use crate::settings::{Settings, or_never};
use crate::tune::tune;

/// How a backend is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 and WebSocket in clear; gRPC by HTTP/2 with prior knowledge.
    Http,
    /// The same over TLS; gRPC by ALPN `h2`.
    Https,
    /// HTTP/2 in clear with prior knowledge, for plain HTTP too; WebSocket by HTTP/1.1.
    H2c,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A host name or address and its port.
    Tcp {
        /// Host name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// Port, not 0.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// The address of a backend: `http://host:port`, `https://host:port`, `h2c://host:port`,
/// `unix:/path`, `unix+h2c:/path`, `host:port` or `port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendAddress {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where it is.
    pub place: Place,
}

/// Why a text is no backend address; says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl AddressError {
    pub(crate) fn no_host(text: &str) -> AddressError {
        AddressError(format!("`{text}` is no host name; allowed are HOST and HOST:PORT"))
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddressError {}

/// The host of an address that is a port only.
const LOCALHOST: &str = "localhost";

const ALLOWED: &str = "allowed are http://HOST:PORT, https://HOST[:PORT], h2c://HOST:PORT, \
    ws://HOST:PORT, wss://HOST[:PORT], unix:/PATH, unix+h2c:/PATH, HOST:PORT and PORT";

impl BackendAddress {
    /// Reads an address; `default` is for texts without a scheme, such as `3000`.
    ///
    /// # Errors
    /// When the text is no address: names the fault and what is allowed.
    pub fn parse(text: &str, default: Scheme) -> Result<BackendAddress, AddressError> {
        let wrong = |what: &str| AddressError(format!("`{text}`: {what}; {ALLOWED}"));
        let unix = |path: &str, scheme| {
            if path.is_empty() || path.contains('\0') {
                return Err(wrong("the path of the unix socket is missing"));
            }
            Ok(BackendAddress { scheme, place: Place::Unix(path.into()) })
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path, Scheme::Http);
        }
        if let Some(path) = text.strip_prefix("unix+h2c:") {
            return unix(path, Scheme::H2c);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("http" | "ws", rest)) => (Scheme::Http, rest),
            Some(("https" | "wss", rest)) => (Scheme::Https, rest),
            Some(("h2c" | "grpc", rest)) => (Scheme::H2c, rest),
            Some(_) => return Err(wrong("this scheme is not known")),
            None => (default, text),
        };
        let had_scheme = rest.len() != text.len();
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(wrong("a backend has a host and a port only, no path and no user"));
        }
        if !had_scheme && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()) {
            let port = port_of(rest).ok_or_else(|| wrong("a port is 1 to 65535"))?;
            return Ok(BackendAddress {
                scheme,
                place: Place::Tcp { host: LOCALHOST.into(), port },
            });
        }
        let (host, port) = split_port(rest).ok_or_else(|| wrong("this is no host"))?;
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let port = match (port, scheme) {
            (Some(port), _) => port_of(port).ok_or_else(|| wrong("a port is 1 to 65535"))?,
            (None, Scheme::Https) => 443,
            (None, _) => return Err(wrong("the port is missing")),
        };
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b)) {
            return Err(wrong("this is no host"));
        }
        Ok(BackendAddress { scheme, place: Place::Tcp { host: host.into(), port } })
    }
}

/// A port from its digits.
fn port_of(text: &str) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// Splits `host[:port]` and takes the brackets off an IPv6 address.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        // A second colon is an IPv6 address without brackets: which colon is the port's?
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

impl FromStr for BackendAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<BackendAddress, AddressError> {
        BackendAddress::parse(text, Scheme::Http)
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.scheme) {
            (Place::Unix(path), Scheme::H2c) => write!(f, "unix+h2c:{}", path.display()),
            (Place::Unix(path), _) => write!(f, "unix:{}", path.display()),
            (Place::Tcp { host, port }, scheme) => {
                f.write_str(match scheme {
                    Scheme::Http => "http://",
                    Scheme::Https => "https://",
                    Scheme::H2c => "h2c://",
                })?;
                if host.contains(':') {
                    write!(f, "[{host}]:{port}")
                } else {
                    write!(f, "{host}:{port}")
                }
            }
        }
    }
}

/// Connects to `address`, with TLS when `tls` is given, within the settings' time.
///
/// # Errors
/// `BackendRefused` or `BackendConnectTimeout`, both retry-safe: nothing was sent.
pub(crate) async fn connect(
    address: &BackendAddress,
    tls: Option<&Arc<ClientConfig>>,
    settings: &Settings,
) -> Result<Conn, Fault> {
    let limit = or_never(settings.backend_connect);
    match tokio::time::timeout(limit, connect_now(address, tls)).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => {
            let detail = format!("{address}: {error}{}", advice(&error));
            Err(Fault::because(Reason::BackendRefused, detail).retry_safe())
        }
        Err(_) => {
            let detail = format!("{address}: no connection within {limit:?}");
            Err(Fault::because(Reason::BackendConnectTimeout, detail).retry_safe())
        }
    }
}

/// What to do about a certificate that is not believed.
fn advice(error: &io::Error) -> &'static str {
    use CertificateError::{NotValidForName, NotValidForNameContext, UnknownIssuer};
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    let Some(rustls::Error::InvalidCertificate(error)) = error else { return "" };
    match error {
        UnknownIssuer => "; if it is signed by an authority of your own, name that in `ca`",
        NotValidForName | NotValidForNameContext { .. } => {
            "; the host of `backend` must be one of its names"
        }
        _ => "",
    }
}

async fn connect_now(
    address: &BackendAddress,
    tls: Option<&Arc<ClientConfig>>,
) -> io::Result<Conn> {
    let (host, port) = match &address.place {
        Place::Unix(path) => {
            return Ok(Conn::new(Stream::Unix(UnixStream::connect(path).await?), Bytes::new()));
        }
        Place::Tcp { host, port } => (host, *port),
    };
    let tcp = if host == LOCALHOST {
        // Development servers often listen on one of the two only; and no resolver is asked.
        TcpStream::connect(
            &[(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()][..],
        )
        .await?
    } else {
        TcpStream::connect((host.as_str(), port)).await?
    };
    tune(&tcp);
    let Some(tls) = tls else {
        return Ok(Conn::new(Stream::Tcp(tcp), Bytes::new()));
    };
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    let stream = tokio_rustls::TlsConnector::from(tls.clone()).connect(name, tcp).await?;
    let must_be_http2 = tls.alpn_protocols.first().is_some_and(|name| name == b"h2");
    if must_be_http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the service does not offer HTTP/2 (ALPN h2)"));
    }
    Ok(Conn::new(Stream::Tls(Box::new(stream.into())), Bytes::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_what_they_write() {
        for (text, canonical) in [
            ("http://a.example:80", "http://a.example:80"),
            ("https://a.example", "https://a.example:443"),
            ("wss://a.example:8443/", "https://a.example:8443"),
            ("ws://[::1]:3000", "http://[::1]:3000"),
            ("h2c://10.0.0.1:50051", "h2c://10.0.0.1:50051"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix+h2c:/run/app.sock", "unix+h2c:/run/app.sock"),
            ("3000", "http://localhost:3000"),
            ("localhost:3000", "http://localhost:3000"),
        ] {
            let address: BackendAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), canonical);
            assert_eq!(canonical.parse::<BackendAddress>().unwrap(), address);
        }
        let grpc = BackendAddress::parse("50051", Scheme::H2c).unwrap();
        assert_eq!(grpc.to_string(), "h2c://localhost:50051");
    }

    #[test]
    fn a_wrong_address_is_told_what_is_allowed() {
        for text in [
            "",
            "ftp://x:1",
            "http://",
            "http://host",
            "http://host:0",
            "70000",
            "host:port",
            "http://h:80/path",
            "http://u@h:80",
            "unix:",
            "::1:80",
            "http://[::1",
            "a b:80",
            "h:+80",
        ] {
            let error = text.parse::<BackendAddress>().unwrap_err().to_string();
            assert!(error.contains("allowed are http://HOST:PORT"), "{text}: {error}");
        }
    }
}
