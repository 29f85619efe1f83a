//! The tables `[[entries]]` and `[[services]]`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use ipnet::IpNet;
use strait_wire::Protocol;

use super::document::{Document, Given, Table};
use super::nodes::{certificate, check_certificate, path_of, same_port};
use super::tls::check_ca;
use super::{
    EntryConfig, Listen, Overrides, RoleKind, Scheme, ServiceConfig, defaults, nearest,
    parse_backend, parse_host_pattern, parse_name, parse_network, parse_origin, parse_path_prefix,
};

/// Reads `[[entries]]` and lays the flags over them.
pub(super) fn entries(
    doc: &Document<'_>,
    root: &Table<'_, '_>,
    folder: &Path,
    role: RoleKind,
    over: &Overrides,
) -> Vec<EntryConfig> {
    let rules = match role {
        RoleKind::Server => Listen::PUBLIC,
        RoleKind::Client => Listen::LOCAL,
    };
    let mut entries: Vec<EntryConfig> = Vec::new();
    let tables = root.tables("entries");
    let none_given = tables.is_none();
    for table in tables.unwrap_or_default() {
        let name = table.parsed("name", parse_name);
        let listen = table.parsed_or_number("listen", "an address", |text| rules.parse(text));
        let tls = certificate(&table, folder);
        let cors_origins = values(table.list("cors_origins", parse_origin));
        let trusted_proxies = trusted_proxies(&table);
        let proxy_protocol = proxy_protocol(&table, &trusted_proxies);
        if listen.is_none() && !table.has("listen") {
            table.missing("listen", "write listen = \"127.0.0.1:8080\"");
        }
        let Some(listen) = listen else { continue };
        let place = name.as_ref().map_or(table.at, |name| name.at);
        let name = name.map_or_else(|| entry_name(entries.len()), |name| name.value);
        if entries.iter().any(|other| other.name == name) {
            doc.problem(place, format!("a second entry of the name `{name}`: names are unique"));
        }
        if let Some(other) = entries.iter().find(|other| same_port(other.listen, listen.value)) {
            let message = format!("`listen`: {} is taken by entry `{}`", listen.value, other.name);
            doc.problem(listen.at, message);
        }
        let listen = listen.value;
        entries.push(EntryConfig {
            name,
            listen,
            tls,
            cors_origins,
            trusted_proxies,
            proxy_protocol,
        });
    }
    if none_given {
        entries = defaults::entries(role);
    }
    if !over.entries.is_empty() {
        let numbered = over.entries.iter().enumerate();
        entries = numbered.map(|(i, listen)| EntryConfig::new(entry_name(i), *listen)).collect();
    }
    if let Some((cert, key)) = &over.entry_tls {
        check_certificate(doc, None, cert, key);
        for entry in &mut entries {
            entry.tls = Some((cert.clone(), key.clone()));
        }
    }
    entries
}

/// The values of a list that may be missing.
fn values<T>(list: Option<Vec<Given<T>>>) -> Vec<T> {
    list.unwrap_or_default().into_iter().map(|given| given.value).collect()
}

fn trusted_proxies(table: &Table<'_, '_>) -> Vec<IpNet> {
    let networks = table.list("trusted_proxies", parse_network).unwrap_or_default();
    for network in networks.iter().filter(|network| network.value.prefix_len() == 0) {
        let message = "`trusted_proxies` names every address: a visitor may claim to be anybody";
        table.doc.warn(Some(network.at), message);
    }
    values(Some(networks))
}

fn proxy_protocol(table: &Table<'_, '_>, trusted: &[IpNet]) -> bool {
    let Some(on) = table.boolean("proxy_protocol").filter(|flag| flag.value) else { return false };
    if trusted.is_empty() {
        let message = "`proxy_protocol` without `trusted_proxies`: whoever reaches this entry may \
                       claim any address";
        table.doc.warn(Some(on.at), message);
    }
    true
}

fn entry_name(index: usize) -> String {
    if index == 0 { "web".to_owned() } else { format!("web-{}", index + 1) }
}

/// Reads `[[services]]` and lays the flags over them.
pub(super) fn services(
    doc: &Document<'_>,
    root: &Table<'_, '_>,
    folder: &Path,
    over: &Overrides,
) -> Vec<ServiceConfig> {
    let mut services: Vec<(Option<usize>, ServiceConfig)> = Vec::new();
    for table in root.tables("services").unwrap_or_default() {
        if let Some(service) = service(&table, folder) {
            services.push((Some(table.at), service));
        }
    }
    if !over.services.is_empty() {
        services = over.services.iter().map(|service| (None, service.clone())).collect();
    }
    check_unique(doc, &services);
    services.into_iter().map(|(_, service)| service).collect()
}

fn service(table: &Table<'_, '_>, folder: &Path) -> Option<ServiceConfig> {
    let name = table.parsed("name", parse_name);
    let protocols = values(table.list("protocols", parse_protocol));
    // A bare port of a gRPC-only service can only mean HTTP/2.
    let scheme = if protocols == [Protocol::Grpc] { Scheme::H2c } else { Scheme::Http };
    let allowed = "a port or an address";
    let backend = table.parsed_or_number("backend", allowed, |text| parse_backend(text, scheme));
    let hosts = values(table.list("hosts", parse_host_pattern));
    let path = table.parsed("path", parse_path_prefix);
    let host_override = table.parsed("host_header", parse_host_header);
    let ca = table.parsed("ca", |text| path_of(folder, text));
    if let Some(ca) = &ca {
        table.doc.check(ca.at, check_ca(&ca.value));
    }
    if name.is_none() && !table.has("name") {
        table.missing("name", "write name = \"web\"");
    }
    if backend.is_none() && !table.has("backend") {
        table.missing("backend", "write backend = \"http://127.0.0.1:3000\"");
    }
    let backend = backend?.value;
    if let Some(ca) = &ca
        && backend.scheme != Scheme::Https
    {
        table
            .doc
            .problem(ca.at, "`ca` needs a backend of https://: nothing else has a certificate");
    }
    Some(ServiceConfig {
        name: name?.value,
        backend,
        protocols,
        hosts,
        path_prefix: path.map_or_else(|| "/".to_owned(), |given| given.value),
        host_override: host_override.map(|given| given.value),
        ca: ca.map(|given| given.value),
    })
}

/// The `Host` that a backend sees: `name` or `name:port`.
///
/// # Errors
/// What is allowed.
pub fn parse_host_header(text: &str) -> Result<String, String> {
    match text.parse::<http::uri::Authority>() {
        Ok(_) if !text.contains('@') => Ok(text.to_owned()),
        _ => Err("must be a host, perhaps with a port, like \"app.local:3000\"".to_owned()),
    }
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    let names = Protocol::ALL.map(Protocol::as_str);
    if let Some(found) = Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == text) {
        return Ok(found);
    }
    let near = nearest(text, &names);
    let near = near.map_or(String::new(), |near| format!(" (did you mean \"{near}\"?)"));
    Err(format!(
        "{:?} is not a protocol{near}; allowed: {}",
        super::value::clip(text),
        names.join(", ")
    ))
}

/// Names are unique, and no request may fit two services equally well.
fn check_unique(doc: &Document<'_>, services: &[(Option<usize>, ServiceConfig)]) {
    let mut names: HashSet<&str> = HashSet::new();
    let mut routes: HashMap<(&str, &str, Protocol), &str> = HashMap::new();
    let report = |at: &Option<usize>, message: String| match at {
        Some(at) => doc.problem(*at, message),
        None => doc.problem_of_all(message),
    };
    for (at, service) in services {
        let name = service.name.as_str();
        if !names.insert(name) {
            report(at, format!("a second service of the name `{name}`: names are unique"));
            continue;
        }
        let any = ["*".to_owned()];
        let hosts = if service.hosts.is_empty() { &any[..] } else { &service.hosts };
        let protocols =
            if service.protocols.is_empty() { &Protocol::ALL[..] } else { &service.protocols };
        let mut clash = None;
        for host in hosts {
            for protocol in protocols {
                // The keys must live as long as `services`; "*" stands for any host.
                let host = service.hosts.iter().find(|h| *h == host).map_or("*", String::as_str);
                let key = (host, service.path_prefix.as_str(), *protocol);
                let earlier = routes.insert(key, name).filter(|earlier| *earlier != name);
                clash = clash.or(earlier);
            }
        }
        if let Some(earlier) = clash {
            let message = format!(
                "services `{earlier}` and `{name}` have the same host, path and protocol: no \
                 request could tell them apart; give one of them another host or path"
            );
            report(at, message);
        }
    }
}
