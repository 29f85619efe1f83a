//! From a file and flags to a [`Config`].

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::document::{Document, Table};
use super::nodes::same_port;
use super::{
    AdminConfig, Config, ConfigError, Limits, Listen, LogConfig, LogFormat, Problem, Role,
    ServerUrl, ServiceConfig, Timeouts, TunnelTls, defaults, nodes, parse_level, problem, routes,
};
use crate::secrets::{Pin, Token};

/// Larger files are not configurations.
const LARGEST: u64 = 32 << 20;

/// The two kinds of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Waits for tunnels.
    Server,
    /// Dials a tunnel.
    Client,
}

impl RoleKind {
    /// `server` or `client`.
    pub fn as_str(self) -> &'static str {
        match self {
            RoleKind::Server => "server",
            RoleKind::Client => "client",
        }
    }
}

/// What was said about the admin address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminChoice {
    /// None at all.
    Off,
    /// Exactly there.
    At(SocketAddr),
}

/// What flags and variables say; it wins over the file. A list replaces the file's list.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The kind of node; `None`: the file decides.
    pub role: Option<RoleKind>,
    /// Entry addresses.
    pub entries: Vec<SocketAddr>,
    /// Certificate and key of all entries.
    pub entry_tls: Option<(PathBuf, PathBuf)>,
    /// Services.
    pub services: Vec<ServiceConfig>,
    /// The admin address.
    pub admin: Option<AdminChoice>,
    /// Form of the logs.
    pub log: Option<LogFormat>,
    /// Level of the log.
    pub level: Option<String>,
    /// Whether there is an access log.
    pub access: Option<bool>,
    /// The credential: for a server the one it asks for, for a client the one it presents.
    pub token: Option<Token>,
    /// Server: the caller adds a token to the configuration before it is run, so that none
    /// need be here.
    pub token_will_follow: bool,
    /// Server: where tunnels arrive.
    pub tunnel: Option<SocketAddr>,
    /// Server: encryption of tunnels.
    pub tls: Option<TunnelTls>,
    /// Server: no TLS, on any interface.
    pub insecure_no_tls: bool,
    /// Server: anybody may connect.
    pub insecure_no_auth: bool,
    /// Client: where to dial.
    pub server: Option<ServerUrl>,
    /// Client: certificates to trust.
    pub ca: Option<PathBuf>,
    /// Client: the certificate to trust.
    pub pin: Option<Pin>,
    /// Client: its name.
    pub id: Option<String>,
    /// Client: do not try for ever.
    pub once: bool,
    /// Client: tunnels that are kept at once.
    pub tunnels: Option<u32>,
    /// Threads that carry requests.
    pub threads: Option<u64>,
}

/// A configuration that can be run.
#[derive(Debug)]
pub struct Loaded {
    /// What to do.
    pub config: Config,
    /// What works but is likely not meant, one line each.
    pub warnings: Vec<String>,
}

/// Reads `file`, when there is one, and lays `over` over it. Reads certificates and tokens
/// that are named there; listens to nothing and dials nothing.
///
/// # Errors
/// Everything that is wrong, each with its place.
pub fn load(file: Option<&Path>, over: &Overrides) -> Result<Loaded, ConfigError> {
    let Some(path) = file else {
        return resolve("", "", Path::new(""), over);
    };
    let name = path.display().to_string();
    let text = read(path, &name)?;
    if text.trim().is_empty() {
        return Err(ConfigError::whole(
            &name,
            "the file is empty; begin with [server] or [client], see docs/strait.example.toml",
        ));
    }
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    resolve(&name, &text, folder, over)
}

fn read(path: &Path, name: &str) -> Result<String, ConfigError> {
    let whole = |message: String| ConfigError::whole(name, message);
    let meta = std::fs::metadata(path).map_err(|error| whole(format!("cannot read: {error}")))?;
    if meta.is_dir() {
        return Err(whole("is a directory; name the file in it".to_owned()));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| whole(format!("cannot read: {error}")))?;
    if bytes.len() as u64 > LARGEST {
        return Err(whole(format!("is larger than {} MiB; split the node", LARGEST >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let at = problem::place(&String::from_utf8_lossy(&error.as_bytes()[..valid]), valid);
        let message = "is not UTF-8 text here; save the file as UTF-8".to_owned();
        ConfigError {
            file: name.to_owned(),
            problems: vec![Problem { at: Some(at), message }],
            more: 0,
        }
    })?;
    // Some editors begin a file with a byte order mark; it means nothing.
    Ok(text.strip_prefix('\u{FEFF}').map_or(text.clone(), str::to_owned))
}

fn resolve(name: &str, text: &str, folder: &Path, over: &Overrides) -> Result<Loaded, ConfigError> {
    let doc = Document::new(name, text);
    let (parsed, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        doc.problem(error.span().map_or(0, |span| span.start), syntax(error.message()));
    }
    if !errors.is_empty() {
        return Err(doc.verdict().err().unwrap_or_else(|| ConfigError::whole(name, "broken TOML")));
    }
    let config = build(&doc, parsed.get_ref(), folder, over);
    let file = name.to_owned();
    let warnings = doc.verdict()?;
    match config {
        Some(config) => Ok(Loaded { config, warnings }),
        None => Err(ConfigError::whole(&file, "no usable configuration")),
    }
}

/// The parser's words, ended like ours.
fn syntax(message: &str) -> String {
    format!("not valid TOML: {message}")
}

fn build(
    doc: &Document<'_>,
    parsed: &DeTable<'_>,
    folder: &Path,
    over: &Overrides,
) -> Option<Config> {
    let root = Table::root(doc, parsed);
    let (server, client) = (root.table("server"), root.table("client"));
    let role = kind(doc, server.as_ref(), client.as_ref(), over);
    let entries = routes::entries(doc, &root, folder, role.unwrap_or(RoleKind::Server), over);
    let services = routes::services(doc, &root, folder, over);
    let admin = admin(&root, role.unwrap_or(RoleKind::Server), over);
    let log = log(&root, over);
    let (mut limits, timeouts) = (limits(&root), timeouts(&root));
    limits.threads = over.threads.unwrap_or(limits.threads);
    let Some(role) = role else {
        [server, client].iter().flatten().for_each(Table::ignore);
        return None;
    };
    let role = match role {
        RoleKind::Server => Role::Server(nodes::server(doc, server, folder, over)),
        RoleKind::Client => Role::Client(nodes::client(doc, client, folder, over, &services)?),
    };
    let config = Config { role, entries, services, admin, log, limits, timeouts };
    check_ports(doc, &config);
    Some(config)
}

/// Which kind of node is meant; flags and file must agree.
fn kind(
    doc: &Document<'_>,
    server: Option<&Table<'_, '_>>,
    client: Option<&Table<'_, '_>>,
    over: &Overrides,
) -> Option<RoleKind> {
    match (server, client, over.role) {
        (Some(_), Some(client), _) => {
            doc.problem(client.at, "[server] and [client] are both here; one file is for one node");
            None
        }
        (Some(table), None, Some(RoleKind::Client)) => {
            doc.problem(table.at, "this file is for a server: start it with `strait server`");
            None
        }
        (None, Some(table), Some(RoleKind::Server)) => {
            doc.problem(table.at, "this file is for a client: start it with `strait client`");
            None
        }
        (Some(_), None, None) => Some(RoleKind::Server),
        (None, Some(_), None) => Some(RoleKind::Client),
        (_, _, Some(role)) => Some(role),
        (None, None, None) => {
            doc.problem_of_all(
                "has neither [server] nor [client]: say which kind of node it is for",
            );
            None
        }
    }
}

fn admin(root: &Table<'_, '_>, role: RoleKind, over: &Overrides) -> Option<AdminConfig> {
    let default = defaults::admin(role);
    let table = root.table("admin");
    let table = table.as_ref();
    let listen = table
        .and_then(|t| t.parsed_or_number("listen", "an address", |text| Listen::LOCAL.parse(text)));
    let on = table.and_then(|t| t.boolean("enabled")).is_none_or(|given| given.value);
    let hosts = table.and_then(|t| t.list("hosts", routes::parse_host_header)).unwrap_or_default();
    let hosts = hosts.into_iter().map(|given| given.value).collect();
    let (listen, optional) = match (&over.admin, listen) {
        (Some(AdminChoice::Off), _) => return None,
        (Some(AdminChoice::At(address)), _) => (*address, false),
        (None, _) if !on => return None,
        (None, Some(given)) => (given.value, false),
        (None, None) => (default.listen, default.optional),
    };
    if !listen.ip().is_loopback() {
        root.doc
            .warn(None, format!("the admin address {listen} can be reached from other machines"));
    }
    Some(AdminConfig { listen, hosts, optional })
}

fn log(root: &Table<'_, '_>, over: &Overrides) -> LogConfig {
    let mut log = LogConfig::default();
    let table = root.table("log");
    let parse = |text: &str| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is not a log format; allowed: text, json")),
    };
    if let Some(table) = &table {
        log.format = table.parsed("format", parse).map_or(log.format, |given| given.value);
        log.access = table.boolean("access").map_or(log.access, |given| given.value);
        log.level = table.parsed("level", parse_level).map_or(log.level, |given| given.value);
    }
    log.format = over.log.unwrap_or(log.format);
    log.access = over.access.unwrap_or(log.access);
    log.level = over.level.clone().unwrap_or(log.level);
    log
}

fn limits(root: &Table<'_, '_>) -> Limits {
    let Some(table) = root.table("limits") else { return Limits::default() };
    let l = Limits::read(&table);
    if l.process_budget < l.session_budget {
        table.doc.problem(table.at, "`process_budget` is smaller than `session_budget`");
    }
    if l.max_window < l.initial_window {
        table.doc.problem(table.at, "`max_window` is smaller than `initial_window`");
    }
    if l.session_budget < l.initial_window {
        table.doc.problem(table.at, "`session_budget` is smaller than `initial_window`");
    }
    l
}

fn timeouts(root: &Table<'_, '_>) -> Timeouts {
    root.table("timeouts").map_or_else(Timeouts::default, |table| Timeouts::read(&table))
}

/// No two listeners of this node may want the same port.
fn check_ports(doc: &Document<'_>, config: &Config) {
    let mut taken: Vec<(String, SocketAddr)> = Vec::new();
    if let Role::Server(tunnel) = &config.role {
        taken.push(("the tunnel".to_owned(), tunnel.listen));
    }
    if let Some(admin) = config.admin.as_ref().filter(|admin| !admin.optional) {
        taken.push(("the admin address".to_owned(), admin.listen));
    }
    for entry in &config.entries {
        for (what, address) in &taken {
            if same_port(*address, entry.listen) {
                let name = &entry.name;
                doc.problem_of_all(format!(
                    "entry `{name}` and {what} both listen on {}: give one another port",
                    entry.listen
                ));
            }
        }
    }
    if let [(_, tunnel), (_, admin)] = taken.as_slice()
        && same_port(*tunnel, *admin)
    {
        doc.problem_of_all(format!("the tunnel and the admin address both listen on {admin}"));
    }
}
