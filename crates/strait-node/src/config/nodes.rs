//! The tables `[server]` and `[client]`: the two ends of the tunnel.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::document::{Document, Given, Table};
use super::tls::check_ca;
use super::value::parse_name_pattern;
use super::{
    Identity, Listen, Overrides, ServerUrl, ServiceConfig, TokenRule, TunnelDial, TunnelListen,
    TunnelTls, default_client_id, defaults, parse_digest, parse_name, parse_pin,
};
use crate::secrets::Token;

/// Tunnels that a client may keep at once. Beyond as many as its server has threads they are only
/// good against what one lost packet holds up.
pub const MAX_TUNNELS: u32 = 64;

/// A path in a file is relative to the file's folder.
pub(super) fn path_of(folder: &Path, text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("must be the path of a file".to_owned());
    }
    Ok(folder.join(text))
}

/// Reads `[server]` and lays the flags over it.
pub(super) fn server(
    doc: &Document<'_>,
    table: Option<Table<'_, '_>>,
    folder: &Path,
    over: &Overrides,
) -> TunnelListen {
    let table = table.as_ref();
    let listen = table.and_then(|t| {
        t.parsed_or_number("listen", "an address", |text| Listen::PUBLIC.parse(text))
    });
    let tls = server_tls(doc, table, folder, over);
    let anybody = table.and_then(|t| t.boolean("insecure_no_auth"));
    let plain = table.and_then(|t| t.boolean("insecure_no_tls"));
    let mut tokens = token_rules(doc, table, folder);
    if let Some(token) = &over.token {
        // A flag replaces what the file says.
        tokens = vec![TokenRule {
            name: "default".to_owned(),
            sha256: token.digest(),
            services: vec!["*".to_owned()],
        }];
    }
    let insecure_no_auth = over.insecure_no_auth || anybody.is_some_and(|flag| flag.value);
    if tokens.is_empty() && !insecure_no_auth && !over.token_will_follow {
        let message = "no client could connect: no token is configured; add a [[server.tokens]] \
                       with the sha256 that `strait token` prints, or start with --token, or \
                       with --insecure-no-auth to let anybody connect";
        match table {
            Some(table) => doc.problem(table.at, message),
            None => doc.problem_of_all(message),
        }
    }
    if insecure_no_auth && !tokens.is_empty() {
        let place = anybody.map(|flag| flag.at);
        doc.warn(place, "anybody may connect (insecure_no_auth): the tokens do not matter");
    }
    let address = over.tunnel.or(listen.map(|l| l.value)).unwrap_or(defaults::TUNNEL);
    let told = over.insecure_no_tls || plain.is_some_and(|flag| flag.value);
    if matches!(tls, TunnelTls::Off) && !address.ip().is_loopback() && !told {
        let message = format!(
            "without TLS the tunnel listens on loopback only, and {address} is not; use TLS, or \
             listen on 127.0.0.1, or say --insecure-no-tls (insecure_no_tls = true) where \
             something in front of it ends TLS"
        );
        match table {
            Some(table) => doc.problem(listen.map_or(table.at, |l| l.at), message),
            None => doc.problem_of_all(message),
        }
    }
    TunnelListen { listen: address, tls, tokens, insecure_no_auth }
}

fn server_tls(
    doc: &Document<'_>,
    table: Option<&Table<'_, '_>>,
    folder: &Path,
    over: &Overrides,
) -> TunnelTls {
    let off = table.and_then(|t| t.boolean("tls")).filter(|flag| !flag.value);
    let files = table.and_then(|t| certificate(t, folder));
    if let Some(tls) = &over.tls {
        if let TunnelTls::Pem { cert, key } = tls {
            check_certificate(doc, None, cert, key);
        }
        return tls.clone();
    }
    if over.insecure_no_tls {
        return TunnelTls::Off;
    }
    match (off, files) {
        (Some(off), Some(_)) => {
            doc.problem(off.at, "`tls` is false, but `cert` and `key` are given: drop one of them");
            TunnelTls::Off
        }
        (Some(_), None) => TunnelTls::Off,
        (None, Some((cert, key))) => TunnelTls::Pem { cert, key },
        (None, None) => TunnelTls::Development,
    }
}

/// `cert` and `key` of a table: both or none, and they must belong together.
pub(super) fn certificate(table: &Table<'_, '_>, folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let cert = table.parsed("cert", |text| path_of(folder, text));
    let key = table.parsed("key", |text| path_of(folder, text));
    match (cert, key) {
        (Some(cert), Some(key)) => {
            check_certificate(table.doc, Some(cert.at), &cert.value, &key.value);
            Some((cert.value, key.value))
        }
        (Some(_), None) if !table.has("key") => {
            table.missing("key", "a certificate needs its private key");
            None
        }
        (None, Some(_)) if !table.has("cert") => {
            table.missing("cert", "a key needs its certificate");
            None
        }
        _ => None,
    }
}

/// Notes what is wrong with a certificate and its key.
pub(super) fn check_certificate(doc: &Document<'_>, at: Option<usize>, cert: &Path, key: &Path) {
    match Identity::from_files(cert, key) {
        Err(message) => match at {
            Some(at) => doc.problem(at, message),
            None => doc.problem_of_all(message),
        },
        Ok(identity) => {
            let shown = cert.display();
            match identity.expires_in() {
                Some(left) if left <= 0 => {
                    doc.warn(
                        at,
                        format!("certificate {shown} has expired: clients will refuse it"),
                    );
                }
                Some(left) if left < 14 * 86_400 => {
                    let days = left / 86_400;
                    doc.warn(at, format!("certificate {shown} expires in {days} days"));
                }
                _ => {}
            }
        }
    }
}

fn token_rules(doc: &Document<'_>, table: Option<&Table<'_, '_>>, folder: &Path) -> Vec<TokenRule> {
    let mut rules: Vec<TokenRule> = Vec::new();
    for (i, rule) in table.and_then(|t| t.tables("tokens")).unwrap_or_default().iter().enumerate() {
        let name = rule.parsed("name", parse_name);
        let sha256 = rule.parsed("sha256", parse_digest).map(|given| given.value);
        let clear = token(rule, folder).map(|token| token.value.digest());
        let services = rule.list("services", parse_name_pattern);
        let services = services.map_or_else(
            || vec!["*".to_owned()],
            |list| list.into_iter().map(|given| given.value).collect(),
        );
        let named = rule.has("sha256") || rule.has("token") || rule.has("token_file");
        if !named {
            rule.missing("sha256", "write the SHA-256 that `strait token` prints");
        }
        let Some(sha256) = sha256.or(clear) else { continue };
        let place = name.as_ref().map_or(rule.at, |name| name.at);
        let name = name.map_or_else(|| format!("token-{}", i + 1), |name| name.value);
        if rules.iter().any(|other| other.name == name) {
            doc.problem(place, format!("a second token of the name `{name}`: names are unique"));
        }
        if rules.iter().any(|other| other.sha256 == sha256) {
            doc.problem(place, format!("token `{name}` has the same secret as another one"));
        }
        rules.push(TokenRule { name, sha256, services });
    }
    rules
}

/// `token` or `token_file` of a table.
fn token(table: &Table<'_, '_>, folder: &Path) -> Option<Given<Token>> {
    let direct = table.parsed("token", Token::parse);
    let file = table.parsed("token_file", |text| path_of(folder, text));
    if let (Some(_), Some(file)) = (&direct, &file) {
        table.doc.problem(file.at, "`token` and `token_file` are both given: drop one of them");
    }
    let from_file = file.and_then(|file| {
        let read = std::fs::read_to_string(&file.value)
            .map_err(|error| format!("`token_file`: cannot read {}: {error}", file.value.display()))
            .and_then(|text| Token::parse(text.trim()).map_err(|e| format!("`token_file`: {e}")));
        if open_to_all(&file.value) {
            let shown = file.value.display();
            table
                .doc
                .warn(Some(file.at), format!("{shown} can be read by everybody: chmod 600 it"));
        }
        table.doc.check(file.at, read).map(|value| Given { value, at: file.at })
    });
    direct.or(from_file)
}

#[cfg(unix)]
fn open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn open_to_all(_: &Path) -> bool {
    false
}

/// Reads `[client]` and lays the flags over it; `None` when the server is not named.
pub(super) fn client(
    doc: &Document<'_>,
    table: Option<Table<'_, '_>>,
    folder: &Path,
    over: &Overrides,
    services: &[ServiceConfig],
) -> Option<TunnelDial> {
    let table = table.as_ref();
    let server = table.and_then(|t| t.parsed("server", |text| text.parse::<ServerUrl>()));
    let from_file = table.and_then(|t| token(t, folder)).map(|given| given.value);
    let ca = table.and_then(|t| t.parsed("ca", |text| path_of(folder, text)));
    let pin = table.and_then(|t| t.parsed("pin", parse_pin));
    let id = table.and_then(|t| t.parsed("id", parse_name)).map(|given| given.value);
    let once = table.and_then(|t| t.boolean("once")).is_some_and(|given| given.value);
    let tunnels = table.and_then(|t| t.count("tunnels", 1..=u64::from(MAX_TUNNELS)));
    let (ca_at, pin_at) = (ca.as_ref().map(|ca| ca.at), pin.map(|pin| pin.at));
    let ca = over.ca.clone().or(ca.map(|ca| ca.value));
    let pin = over.pin.or(pin.map(|pin| pin.value));
    if let Some(path) = &ca {
        let checked = check_ca(path);
        match ca_at.filter(|_| over.ca.is_none()) {
            Some(at) => drop(doc.check(at, checked)),
            None => checked.unwrap_or_else(|message| doc.problem_of_all(message)),
        }
    }
    let named_badly = table.is_some_and(|t| t.has("server")) && server.is_none();
    let Some(server) = over.server.clone().or(server.map(|given| given.value)) else {
        let message = "no server is named: give --server https://HOST:7443, as the server \
                       prints it when it starts";
        match table {
            _ if named_badly => {}
            Some(table) => table.missing("server", "write server = \"https://HOST:7443\""),
            None => doc.problem_of_all(message),
        }
        return None;
    };
    if !server.tls {
        if pin.is_some() || ca.is_some() {
            let message =
                "`ca` and `pin` need TLS, but the server's URL is http://: write https://";
            match pin_at.or(ca_at) {
                Some(at) => doc.problem(at, message),
                None => doc.problem_of_all(message),
            }
        } else if !server.is_loopback() {
            doc.warn(
                None,
                format!("{server} is not encrypted: token and traffic travel in clear text"),
            );
        }
    }
    Some(TunnelDial {
        token: over.token.clone().or(from_file),
        id: over.id.clone().or(id).unwrap_or_else(|| default_client_id(&server, services)),
        once: over.once || once,
        tunnels: over.tunnels.unwrap_or(tunnels.unwrap_or(1) as u32),
        server,
        ca,
        pin,
    })
}

/// Two listeners on one address cannot be.
pub(super) fn same_port(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}
