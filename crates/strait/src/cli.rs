//! The grammar of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{FalseyValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use strait_node::config::{
    AdminChoice, Listen, LogFormat, MAX_THREADS, MAX_TUNNELS, Overrides, ServerUrl, parse_level,
    parse_name, parse_pin,
};
use strait_node::secrets::{Pin, Token};

use crate::services::{ClientServices, ServerServices};

const EXAMPLES: &str = "\
Try it, all in one process:
  strait demo

Reach a web app behind a firewall:
  strait server                              on the public machine; it prints the line
  strait client --server URL ... http 3000   for the private one

Look after it:
  strait status                              sessions, routes and what is in flight
  strait check strait.toml                   what is wrong with a file, and where";

const CLIENT_EXAMPLES: &str = "\
Services are pairs of KIND and TARGET; --host, --path, --host-header and --name
belong to the pair before them:
  http 3000                        HTTP and WebSocket at localhost:3000
  grpc 50051                       gRPC at localhost:50051
  http app.lan:80 --host a.example.org http unix:/run/api.sock --path /api

Most flags can also be given as variables: STRAIT_SERVER, STRAIT_TOKEN, STRAIT_CONFIG, ...";

const SERVER_EXAMPLES: &str = "\
Without --token the server makes one, prints it once, and remembers only its SHA-256.
Most flags can also be given as variables: STRAIT_LISTEN, STRAIT_TOKEN, STRAIT_CONFIG, ...";

/// One narrow passage: HTTP, WebSocket and gRPC, both ways, through one gRPC stream
#[derive(Parser, Debug)]
#[command(
    name = "strait",
    version,
    after_help = EXAMPLES,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Wait for tunnels, and take traffic for what they offer
    #[command(after_help = SERVER_EXAMPLES)]
    Server(Box<ServerArguments>),
    /// Connect to a server, and offer it services
    #[command(after_help = CLIENT_EXAMPLES)]
    Client(Box<ClientArguments>),
    /// Run server, client and samples in one process, with a page to look at
    Demo(crate::demo::Arguments),
    /// Measure a tunnel on this machine
    Bench(crate::bench::Arguments),
    /// Check a configuration file without starting anything
    Check(CheckArguments),
    /// Show sessions, routes and what is in flight
    Status(StatusArguments),
    /// Make a token and its SHA-256 for a server's configuration
    Token,
}

/// What both kinds of node can be told.
#[derive(Args, Debug)]
#[command(next_help_heading = "Operation")]
pub(crate) struct NodeArguments {
    /// Read this file; flags win over it
    #[arg(long, value_name = "FILE", env = "STRAIT_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// Address of /metrics, /healthz, /readyz and /status, or "off"
    #[arg(long, value_name = "ADDR", env = "STRAIT_ADMIN", hide_env = true, value_parser = admin)]
    pub(crate) admin: Option<AdminChoice>,
    /// Form of the log lines: text or json
    #[arg(long, value_name = "FORM", env = "STRAIT_LOG", hide_env = true, value_parser = form(),
          hide_possible_values = true)]
    pub(crate) log: Option<LogFormat>,
    /// error, warn, info, debug, trace, or by target: info,strait_node=debug
    #[arg(long, value_name = "LEVEL", env = "STRAIT_LOG_LEVEL", hide_env = true,
          value_parser = parse_level)]
    pub(crate) log_level: Option<String>,
    /// Threads that carry requests [default: half of the cores]
    #[arg(long, value_name = "N", env = "STRAIT_THREADS", hide_env = true,
          value_parser = clap::value_parser!(u64).range(1..=MAX_THREADS))]
    pub(crate) threads: Option<u64>,
    /// No line for each request on standard output
    #[arg(long, env = "STRAIT_NO_ACCESS_LOG", hide_env = true, value_parser = yes())]
    pub(crate) no_access_log: bool,
}

impl NodeArguments {
    pub(crate) fn lay_over(&self, over: &mut Overrides) {
        over.admin = self.admin.clone();
        over.log = self.log;
        over.level = self.log_level.clone();
        over.threads = self.threads;
        over.access = self.no_access_log.then_some(false);
    }
}

#[derive(Args, Debug)]
pub(crate) struct ServerArguments {
    /// Entry: a port for visitors [default: 8080 on all interfaces]; repeatable
    #[arg(long, value_name = "ADDR", env = "STRAIT_LISTEN", hide_env = true,
          value_delimiter = ',', value_parser = public, help_heading = "Entries")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Certificate chain of the entries (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "STRAIT_ENTRY_CERT",
        hide_env = true,
        requires = "entry_key",
        help_heading = "Entries"
    )]
    pub(crate) entry_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "STRAIT_ENTRY_KEY",
        hide_env = true,
        requires = "entry_cert",
        help_heading = "Entries"
    )]
    pub(crate) entry_key: Option<PathBuf>,
    /// Where tunnels arrive [default: 7443 on all interfaces]
    #[arg(long, value_name = "ADDR", env = "STRAIT_TUNNEL", hide_env = true,
          value_parser = public, help_heading = "Tunnel")]
    pub(crate) tunnel: Option<SocketAddr>,
    /// The token that clients must present [default: one made at the first start]
    #[arg(long, value_name = "TOKEN", env = "STRAIT_TOKEN", hide_env = true,
          value_parser = secret, help_heading = "Tunnel")]
    pub(crate) token: Option<Secret>,
    /// Make a new token instead of the remembered one
    #[arg(long, conflicts_with_all = ["token", "config"], help_heading = "Tunnel")]
    pub(crate) new_token: bool,
    /// Certificate chain of the tunnel (PEM) [default: a self-signed one, pinned by clients]
    #[arg(
        long,
        value_name = "FILE",
        env = "STRAIT_TLS_CERT",
        hide_env = true,
        requires = "tls_key",
        help_heading = "Tunnel"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "STRAIT_TLS_KEY",
        hide_env = true,
        requires = "tls_cert",
        help_heading = "Tunnel"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// No TLS on the tunnel; on loopback only
    #[arg(long, env = "STRAIT_NO_TLS", hide_env = true, value_parser = yes(), help_heading = "Tunnel")]
    pub(crate) no_tls: bool,
    /// No TLS on the tunnel, on any interface: where something in front of it ends TLS
    #[arg(long, env = "STRAIT_INSECURE_NO_TLS", hide_env = true, value_parser = yes(), help_heading = "Tunnel")]
    pub(crate) insecure_no_tls: bool,
    /// Let anybody connect a tunnel
    #[arg(long, env = "STRAIT_INSECURE_NO_AUTH", hide_env = true, value_parser = yes(), help_heading = "Tunnel")]
    pub(crate) insecure_no_auth: bool,
    #[command(flatten)]
    pub(crate) services: ServerServices,
    #[command(flatten)]
    pub(crate) node: NodeArguments,
}

#[derive(Args, Debug)]
pub(crate) struct ClientArguments {
    /// The server, as it prints it: https://HOST:PORT
    #[arg(
        long,
        value_name = "URL",
        env = "STRAIT_SERVER",
        hide_env = true,
        help_heading = "Tunnel"
    )]
    pub(crate) server: Option<ServerUrl>,
    /// The token, as the server printed it (better: in STRAIT_TOKEN)
    #[arg(long, value_name = "TOKEN", env = "STRAIT_TOKEN", hide_env = true,
          value_parser = secret, help_heading = "Tunnel")]
    pub(crate) token: Option<Secret>,
    /// Trust exactly the certificate with this SHA-256: sha256:...
    #[arg(long, value_name = "PIN", env = "STRAIT_PIN", hide_env = true,
          value_parser = parse_pin, help_heading = "Tunnel")]
    pub(crate) pin: Option<Pin>,
    /// Trust these certificates beside those of the system (PEM)
    #[arg(long, value_name = "FILE", env = "STRAIT_CA", hide_env = true, help_heading = "Tunnel")]
    pub(crate) ca: Option<PathBuf>,
    /// This client's name [default: the host's name and a number]
    #[arg(long, value_name = "NAME", env = "STRAIT_ID", hide_env = true,
          value_parser = parse_name, help_heading = "Tunnel")]
    pub(crate) id: Option<String>,
    /// End with an error when the first connection fails, instead of trying for ever
    #[arg(long, env = "STRAIT_ONCE", hide_env = true, value_parser = yes(), help_heading = "Tunnel")]
    pub(crate) once: bool,
    /// Tunnels to keep at once, each on a thread of its own as far as there are threads [default: 1]
    #[arg(long, value_name = "N", env = "STRAIT_TUNNELS", hide_env = true,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TUNNELS)), help_heading = "Tunnel")]
    pub(crate) tunnels: Option<u32>,
    /// Entry: a local port to the services of the server; repeatable
    #[arg(long, value_name = "ADDR", env = "STRAIT_ENTRY", hide_env = true,
          value_delimiter = ',', value_parser = local, help_heading = "Entries")]
    pub(crate) entry: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) services: ClientServices,
    #[command(flatten)]
    pub(crate) node: NodeArguments,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArguments {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArguments {
    /// The node's admin address [default: the usual ones of this machine]
    #[arg(long, value_name = "HOST:PORT", env = "STRAIT_ADMIN", hide_env = true)]
    pub(crate) admin: Option<String>,
    /// Print the node's JSON as it is
    #[arg(long)]
    pub(crate) json: bool,
}

/// A token as it was typed. Checked later, so that no error message repeats it.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Secret {
    pub(crate) fn token(&self) -> Result<Token, String> {
        Token::parse(&self.0)
    }
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret(text.to_owned()))
}

fn public(text: &str) -> Result<SocketAddr, String> {
    Listen::PUBLIC.or_any_port().parse(text)
}

fn local(text: &str) -> Result<SocketAddr, String> {
    Listen::LOCAL.or_any_port().parse(text)
}

fn admin(text: &str) -> Result<AdminChoice, String> {
    match text {
        "off" => Ok(AdminChoice::Off),
        _ => local(text).map(AdminChoice::At).map_err(|error| format!("{error}, or \"off\"")),
    }
}

/// A flag's variable: anything but "", 0, n, no, f, false, off means yes.
fn yes() -> FalseyValueParser {
    FalseyValueParser::new()
}

fn form() -> impl TypedValueParser<Value = LogFormat> {
    PossibleValuesParser::new(["text", "json"]).map(|form| match form.as_str() {
        "json" => LogFormat::Json,
        _ => LogFormat::Text,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn refused(line: &str) -> String {
        let words = line.split_whitespace();
        Cli::try_parse_from(words).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn mistakes_are_answered_with_what_is_allowed() {
        for (line, expected) in [
            ("strait sevrer", "'server'"),
            ("strait server --lisen 80", "'--listen'"),
            ("strait server --listen", "a value is required"),
            ("strait server --listen 70000", "allowed: 0 to 65535"),
            ("strait server --tunnel example.org:1", "localhost:port"),
            ("strait server --tls-cert a.pem", "--tls-key"),
            ("strait server --new-token --token x", "cannot be used with"),
            ("strait server --log xml", "[possible values: text, json]"),
            ("strait server --log-level loud", "info"),
            ("strait server --admin nowhere", "\"off\""),
            ("strait client --server example.org:7443 http 1", "https://example.org:7443"),
            ("strait client --server https://a/path http 1", "without a path"),
            ("strait client --server ftp://a http 1", "ftp:// is not possible"),
            ("strait client --pin abc http 1", "sha256:"),
            ("strait client --id a/b http 1", "letters"),
            ("strait check", "<FILE>"),
        ] {
            let said = refused(line);
            assert!(said.contains(expected), "{line}: {said}");
        }
    }

    #[test]
    fn a_token_is_shown_nowhere() {
        let words = ["strait", "client", "--token", "st_very_secret", "http", "3000"];
        let parsed = Cli::try_parse_from(words).unwrap();
        assert!(!format!("{parsed:?}").contains("very_secret"));
        let words = ["strait", "client", "--token", "st_very secret", "--nonsense"];
        let said = Cli::try_parse_from(words).map(|_| ()).unwrap_err().to_string();
        assert!(!said.contains("very"), "{said}");
        assert!(!Secret("a b secret".to_owned()).token().unwrap_err().contains("secret"));
    }
}
