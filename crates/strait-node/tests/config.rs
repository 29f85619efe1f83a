//! Configuration files as people write them: each mistake is told with its place and with
//! what is allowed.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strait_node::config::{
    Config, Limits, Loaded, LogConfig, Overrides, Role, RoleKind, Timeouts, TunnelTls, load,
};
use strait_node::secrets::{DevelopmentCertificate, Token};

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path =
            std::env::temp_dir().join(format!("strait-config-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(path: &Path) -> Result<Loaded, String> {
    load(Some(path), &Overrides::default()).map_err(|error| {
        error.to_string().replace(&format!("{}/", path.parent().unwrap().display()), "")
    })
}

const OPEN: &str = "[server]\ninsecure_no_auth = true\n";

/// Text after a valid `[server]`, and the whole message for it. Line 3 is its first.
const MISTAKES: &[(&str, &str)] = &[
    (
        "listn = 1",
        "f:3:1: unknown key `listn` (did you mean `listen`?); allowed in [server]: listen, tls, cert, key, insecure_no_auth, insecure_no_tls, tokens",
    ),
    (
        "[lgo]",
        "f:3:2: unknown key `lgo` (did you mean `log`?); allowed here: server, client, entries, services, admin, log, limits, timeouts",
    ),
    (
        "listen = \"abc\"",
        "f:3:10: `listen`: \"abc\" has no port number; write a port, IP:port or localhost:port, like \"8080\" or \"127.0.0.1:8080\"",
    ),
    ("listen = 70000", "f:3:10: `listen`: port 70000 is out of range; allowed: 1 to 65535"),
    ("listen = 0", "f:3:10: `listen`: port 0 is out of range; allowed: 1 to 65535"),
    ("listen = -1", "f:3:10: `listen`: port -1 is out of range; allowed: 1 to 65535"),
    ("listen = true", "f:3:10: `listen` is a boolean, but must be an address"),
    ("tls = \"no\"", "f:3:7: `tls` is a string, but must be true or false, without quotes"),
    (
        "tls = false",
        "f:1:1: without TLS the tunnel listens on loopback only, and 0.0.0.0:7443 is not; use TLS, or listen on 127.0.0.1, or say --insecure-no-tls (insecure_no_tls = true) where something in front of it ends TLS",
    ),
    ("cert = \"a.pem\"", "f:1:1: [server] has no `key`: a certificate needs its private key"),
    (
        "cert = \"no.pem\"\nkey = \"no.pem\"",
        "f:3:8: cannot read no.pem: No such file or directory (os error 2)",
    ),
    (
        "[[server.tokens]]\nname = \"a\"",
        "f:3:1: [[server.tokens]] has no `sha256`: write the SHA-256 that `strait token` prints",
    ),
    (
        "[[server.tokens]]\nsha256 = \"12\"",
        "f:4:10: `sha256`: must be a SHA-256 in 64 hex digits, as `strait token` prints it",
    ),
    (
        "[[server.tokens]]\ntoken = \"\"",
        "f:4:9: `token`: the token is empty; make one with `strait token`",
    ),
    (
        "[[server.tokens]]\ntoken = \"a\"\nservices = [\"a/b\"]",
        "f:5:13: `services`: \"a/b\" is not a service name or a pattern like \"api-*\" or \"*\"",
    ),
    (
        "[[entries]]\nname = \"a\"",
        "f:3:1: [[entries]] has no `listen`: write listen = \"127.0.0.1:8080\"",
    ),
    (
        "[[entries]]\nlisten = 80\ncors_origins = [\"https://a.example/\"]",
        "f:5:17: `cors_origins`: \"https://a.example/\" is not the origin of a page; write it as browsers send it, like \"https://app.example.org\" or \"http://localhost:3000\": lower case, without path and without the scheme's own port; or \"*\" for any",
    ),
    (
        "[[entries]]\nlisten = 80\n[[entries]]\nlisten = \"127.0.0.1:80\"",
        "f:6:10: `listen`: 127.0.0.1:80 is taken by entry `web`",
    ),
    (
        "[[entries]]\nlisten = 7443",
        "f: entry `web` and the tunnel both listen on 0.0.0.0:7443: give one another port",
    ),
    (
        "[entries]\nlisten = 80",
        "f:3:1: `entries` is a table, but must be a list of tables: write [[entries]]",
    ),
    (
        "[[services]]\nname = \"a\"",
        "f:3:1: [[services]] has no `backend`: write backend = \"http://127.0.0.1:3000\"",
    ),
    (
        "[[services]]\nname = \"a b\"\nbackend = 1",
        "f:4:8: `name`: \"a b\" is not a name; allowed: 1 to 64 letters, digits, '.', '_' and '-', not '.' first",
    ),
    (
        "[[services]]\nname = \"a\"\nbackend = 1\npath = \"x\"",
        "f:6:8: `path`: \"x\" must begin with '/', like \"/api\"",
    ),
    (
        "[[services]]\nname = \"a\"\nbackend = 1\nhosts = [\"http://a\"]",
        "f:6:10: `hosts`: \"http://a\" is not a host; write a name like \"app.example.org\" or \"*.example.org\", without scheme, port and path",
    ),
    (
        "[[services]]\nname = \"a\"\nbackend = 1\nprotocols = [\"gprc\"]",
        "f:6:14: `protocols`: \"gprc\" is not a protocol (did you mean \"grpc\"?); allowed: http, grpc, websocket",
    ),
    (
        "[[services]]\nname = \"a\"\nbackend = 1\n[[services]]\nname = \"a\"\nbackend = 2",
        "f:6:1: a second service of the name `a`: names are unique",
    ),
    (
        "[[services]]\nname = \"a\"\nbackend = 1\n[[services]]\nname = \"b\"\nbackend = 2\nprotocols = \"grpc\"",
        "f:6:1: services `a` and `b` have the same host, path and protocol: no request could tell them apart; give one of them another host or path",
    ),
    (
        "[timeouts]\ndrain = \"10\"",
        "f:4:9: `drain`: \"10\" has no unit; write a whole number with ms, s, m or h, like \"500ms\" or \"10s\"",
    ),
    (
        "[timeouts]\ndrain = 10",
        "f:4:9: `drain`: \"10\" has no unit; write a whole number with ms, s, m or h, like \"500ms\" or \"10s\"",
    ),
    (
        "[timeouts]\ndrain = \"-5s\"",
        "f:4:9: `drain`: \"-5s\" is negative; write a whole number with ms, s, m or h, like \"500ms\" or \"10s\"",
    ),
    (
        "[timeouts]\nheaders = \"0s\"",
        "f:4:11: `headers`: 0s is out of range; allowed: 10ms to 3600s",
    ),
    (
        "[limits]\nmax_uri = \"10XB\"",
        "f:4:11: `max_uri`: \"10XB\" has an unknown unit; write a whole number with B, KiB, MiB or GiB, like \"64KiB\"",
    ),
    (
        "[limits]\nmax_uri = \"1GiB\"",
        "f:4:11: `max_uri`: 1GiB is out of range; allowed: 256B to 256KiB",
    ),
    ("[limits]\nmax_requests = 0", "f:4:16: `max_requests` is 0; allowed: 1 to 1000000"),
    (
        "[limits]\nmax_requests = \"9\"",
        "f:4:16: `max_requests` is a string, but must be a whole number, without quotes",
    ),
    (
        "[limits]\nprocess_budget = \"1MiB\"",
        "f:3:1: `process_budget` is smaller than `session_budget`",
    ),
    (
        "[log]\nformat = \"xml\"",
        "f:4:10: `format`: \"xml\" is not a log format; allowed: text, json",
    ),
    (
        "[log]\nlevel = \"loud\"",
        "f:4:9: `level`: \"loud\" is not a level; allowed: off, error, warn, info, debug, trace, or by target like \"info,strait_node=debug\"",
    ),
    (
        "[admin]\nlisten = \"x:1\"",
        "f:4:10: `listen`: \"x:1\" does not name an interface of this machine by its IP address; write a port, IP:port or localhost:port, like \"8080\" or \"127.0.0.1:8080\"",
    ),
    (
        "[client]\nserver = \"https://a\"",
        "f:3:1: [server] and [client] are both here; one file is for one node",
    ),
    (
        "log = 3",
        "f:3:1: unknown key `log`; allowed in [server]: listen, tls, cert, key, insecure_no_auth, insecure_no_tls, tokens",
    ),
];

#[test]
fn each_mistake_is_told_with_its_place() {
    let folder = Folder::new("mistakes");
    let mut wrong = Vec::new();
    for (text, expected) in MISTAKES {
        let path = folder.write("f", format!("{OPEN}{text}\n"));
        let folder = format!("{}/", folder.0.display());
        let said = read(&path).map(|_| String::new()).unwrap_or_else(|said| said);
        let said = said.replace(&folder, "");
        if said != *expected {
            wrong.push(format!("{text}\n  says     {said}\n  must say {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

const CLIENT_MISTAKES: &[(&str, &str)] = &[
    ("", "f:1:1: [client] has no `server`: write server = \"https://HOST:7443\""),
    (
        "server = \"a:7443\"",
        "f:2:10: `server`: \"a:7443\" has no scheme; write https://HOST:PORT, as the server prints it (https://a:7443 ?)",
    ),
    (
        "server = \"https://a/x\"",
        "f:2:10: `server`: \"https://a/x\" has a path; write https://HOST:PORT, as the server prints it, without a path",
    ),
    (
        "server = \"https://a\"\npin = \"12\"",
        "f:3:7: `pin`: \"12\" is not a pin; copy it from the server: \"sha256:\" and 64 hex digits",
    ),
    (
        "server = \"https://a\"\nca = \"no.pem\"",
        "f:3:6: `ca`: cannot read no.pem: No such file or directory (os error 2)",
    ),
    (
        "server = \"https://a\"\ntoken_file = \"no\"",
        "f:3:14: `token_file`: cannot read no: No such file or directory (os error 2)",
    ),
    (
        "server = \"https://a\"\nid = \"\"",
        "f:3:6: `id`: \"\" is not a name; allowed: 1 to 64 letters, digits, '.', '_' and '-', not '.' first",
    ),
    (
        "server = \"https://a\"\ntokn = \"\"",
        "f:3:1: unknown key `tokn` (did you mean `token`?); allowed in [client]: server, token, token_file, ca, pin, id, once",
    ),
];

#[test]
fn a_clients_mistakes_too() {
    let folder = Folder::new("client");
    for (text, expected) in CLIENT_MISTAKES {
        let path = folder.write("f", format!("[client]\n{text}\n"));
        let folder = format!("{}/", folder.0.display());
        assert_eq!(read(&path).unwrap_err().replace(&folder, ""), *expected, "for:\n{text}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_their_order() {
    let folder = Folder::new("all");
    let path = folder.write("f", "[timeouts]\ndrain = \"1\"\n\n[server]\nlisten = 0\nfoo = 1\n");
    let said = read(&path).unwrap_err();
    let places: Vec<&str> = said.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["f:2:9", "f:4:1", "f:5:10", "f:6:1"], "{said}");
    let many = folder.write(
        "f",
        format!("{OPEN}{}", (0..100).map(|i| format!("key{i} = 1\n")).collect::<String>()),
    );
    assert!(read(&many).unwrap_err().ends_with("... and 80 more"));
}

#[test]
fn what_is_no_configuration_at_all_is_said() {
    let folder = Folder::new("none");
    let cases: &[(&[u8], &str)] = &[
        (b"", "f: the file is empty"),
        (b" \n\t\n", "f: the file is empty"),
        (b"# nothing\n", "f: has neither [server] nor [client]"),
        (b"[server\n", "f:1:8: not valid TOML: "),
        (b"a = 1\na = 2\n", "f:2:1: not valid TOML: duplicate key"),
        (b"[server]\nx = \xFF\n", "f:2:5: is not UTF-8 text here"),
        (b"[server]\nlisten = \"a\0b\"\n", "f:2:12: not valid TOML: "),
        (b"{\"server\": {}}", "f:1:"),
    ];
    for (bytes, expected) in cases {
        let said = read(&folder.write("f", bytes)).unwrap_err();
        assert!(said.starts_with(expected), "{said}");
        assert!(!said.contains('\0'), "{said:?}");
    }
    assert_eq!(
        read(&folder.0.join("no")).unwrap_err(),
        "no: cannot read: No such file or directory (os error 2)"
    );
    let said = load(Some(&folder.0), &Overrides::default()).unwrap_err().to_string();
    assert!(said.ends_with("is a directory; name the file in it"), "{said}");
}

#[test]
fn a_byte_order_mark_means_nothing() {
    let folder = Folder::new("bom");
    assert!(read(&folder.write("f", format!("\u{FEFF}{OPEN}"))).is_ok());
    let said = read(&folder.write("f", format!("\u{FEFF}{OPEN}x = 1"))).unwrap_err();
    assert!(said.starts_with("f:3:1: "), "{said}");
}

#[test]
fn a_column_counts_characters() {
    let folder = Folder::new("column");
    let path = folder.write("f", "[server]\ntokens = [{ name = \"ääää\", sha256 = \"x\" }]\n");
    let said = read(&path).unwrap_err();
    assert!(said.contains("f:2:20: ") && said.contains("f:2:37: "), "{said}");
}

#[test]
fn a_large_file_is_read_or_refused_in_bounded_time() {
    let folder = Folder::new("large");
    let mut text = OPEN.to_owned();
    for i in 0..20_000 {
        text += &format!("[[services]]\nname = \"s{i}\"\nbackend = 3000\npath = \"/p{i}\"\n");
    }
    let path = folder.write("f", &text);
    let start = Instant::now();
    assert_eq!(read(&path).unwrap().config.services.len(), 20_000);
    text += "[[services]]\nname = \"s0\"\nbackend = 3000\n";
    let said = read(&folder.write("f", &text)).unwrap_err();
    assert!(said.contains("a second service of the name `s0`"), "{said}");
    // Linear time would be a small part of this, quadratic time a large multiple.
    assert!(start.elapsed() < Duration::from_secs(60));
    let said = read(&folder.write("f", vec![b'#'; 33 << 20])).unwrap_err();
    assert!(said.contains("is larger than 32 MiB"), "{said}");
}

#[test]
fn certificates_are_checked_before_anything_listens() {
    let folder = Folder::new("certificates");
    let (a, b) = (DevelopmentCertificate::make().unwrap(), DevelopmentCertificate::make().unwrap());
    folder.write("a.pem", a.cert_pem());
    folder.write("a.key", a.key_pem());
    folder.write("b.key", b.key_pem());
    folder.write("none.pem", "hello");
    let said = |cert: &str, key: &str| {
        let text = format!("{OPEN}cert = \"{cert}\"\nkey = \"{key}\"\n");
        let said = read(&folder.write("f", text)).map(|_| ());
        said.map_err(|said| said.replace(&format!("{}/", folder.0.display()), ""))
    };
    assert_eq!(said("a.pem", "a.key"), Ok(()));
    let cases = [
        (
            "a.key",
            "a.pem",
            "f:3:8: certificate a.key holds no PEM certificate: it holds a private key; are the two swapped?",
        ),
        (
            "a.pem",
            "a.pem",
            "f:3:8: key a.pem holds no PEM private key: it holds a certificate; are the two swapped?",
        ),
        ("a.pem", "b.key", "f:3:8: key b.key does not belong to certificate a.pem"),
        ("none.pem", "a.key", "f:3:8: certificate none.pem holds no PEM certificate"),
        (".", "a.key", "f:3:8: cannot read ./: is not a file"),
    ];
    for (cert, key, expected) in &cases[..4] {
        assert_eq!(said(cert, key).unwrap_err(), *expected);
    }
    assert!(said(".", "a.key").unwrap_err().ends_with("is not a file"));
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let folder = Folder::new("expired");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    folder.write("a.pem", params.self_signed(&key).unwrap().pem());
    folder.write("a.key", key.serialize_pem());
    let path = folder.write("f", format!("{OPEN}cert = \"a.pem\"\nkey = \"a.key\"\n"));
    let warnings = read(&path).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("f:3:8: certificate ") && warnings[0].contains("has expired"));
}

#[cfg(unix)]
#[test]
fn a_token_file_that_everybody_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("token");
    let token = folder.write("t", "st_secret\n");
    let path = folder.write("f", "[client]\nserver = \"https://a\"\ntoken_file = \"t\"\n");
    for (mode, warned) in [(0o644, 1), (0o600, 0)] {
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = read(&path).unwrap();
        assert_eq!(loaded.warnings.len(), warned, "{:?}", loaded.warnings);
        let Role::Client(dial) = loaded.config.role else { panic!("not a client") };
        assert_eq!(dial.token, Some(Token::parse("st_secret").unwrap()));
    }
}

fn config(over: Overrides) -> Config {
    load(None, &over).unwrap().config
}

#[test]
fn nothing_said_means_the_documented_defaults() {
    let server =
        Overrides { role: Some(RoleKind::Server), token_will_follow: true, ..Overrides::default() };
    let config = config(server);
    assert_eq!(config.entries.len(), 1);
    assert_eq!(config.entries[0].listen, "0.0.0.0:8080".parse().unwrap());
    let admin = config.admin.as_ref().unwrap();
    assert_eq!((admin.listen, admin.optional), ("127.0.0.1:7600".parse().unwrap(), true));
    let Role::Server(tunnel) = &config.role else { panic!("not a server") };
    assert_eq!(tunnel.listen, "0.0.0.0:7443".parse().unwrap());
    assert!(matches!(tunnel.tls, TunnelTls::Development));
    let nobody = Overrides { role: Some(RoleKind::Server), ..Overrides::default() };
    assert!(load(None, &nobody).unwrap_err().to_string().contains("--insecure-no-auth"));
}

#[test]
fn the_example_file_is_valid_and_shows_the_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/strait.example.toml");
    let loaded = load(Some(&example), &Overrides::default()).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let config = loaded.config;
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.log, LogConfig::default());
    assert_eq!((config.entries.len(), config.services.len()), (2, 2));
    assert_eq!(config.entries[0].cors_origins, ["https://app.example.org"]);
    assert!(config.entries[1].cors_origins.is_empty());
    let Role::Server(tunnel) = &config.role else { panic!("not a server") };
    let rule = &tunnel.tokens[0];
    assert!(rule.allows("web") && rule.allows("api-1") && !rule.allows("other"));
    // What is commented out is valid too.
    let text = fs::read_to_string(&example).unwrap();
    let client: String = text
        .lines()
        .skip_while(|line| *line != "# [client]")
        .take_while(|line| line.starts_with('#'))
        .map(|line| format!("{}\n", &line[2..]))
        .filter(|line| !line.contains("_file") && !line.contains("ca.pem") && !line.contains("..."))
        .collect();
    let folder = Folder::new("example");
    let loaded = read(&folder.write("f", client)).unwrap();
    assert!(matches!(loaded.config.role, Role::Client(dial) if dial.id == "laptop"));
}

#[test]
fn flags_win_over_the_file() {
    let folder = Folder::new("flags");
    let path = folder.write(
        "f",
        "[server]\nlisten = 7001\ntokens = [{ token = \"a\" }]\n[[entries]]\nlisten = 7002\n\
         [log]\nformat = \"json\"\n[admin]\nlisten = 7003\n",
    );
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let over = Overrides {
        role: Some(RoleKind::Server),
        tunnel: Some(address("127.0.0.1:8001")),
        entries: vec![address("127.0.0.1:8002"), address("127.0.0.1:8003")],
        admin: Some(strait_node::config::AdminChoice::Off),
        token: Some(Token::parse("b").unwrap()),
        ..Overrides::default()
    };
    let config = load(Some(&path), &over).unwrap().config;
    let Role::Server(tunnel) = &config.role else { panic!("not a server") };
    assert_eq!(tunnel.listen, address("127.0.0.1:8001"));
    assert_eq!(tunnel.tokens.len(), 1);
    assert_eq!(tunnel.tokens[0].sha256, Token::parse("b").unwrap().digest());
    assert_eq!(config.entries.len(), 2);
    assert!(config.admin.is_none());
    assert_eq!(config.log.format, strait_node::config::LogFormat::Json);
    let client = Overrides { role: Some(RoleKind::Client), ..Overrides::default() };
    let said = load(Some(&path), &client).unwrap_err().to_string();
    assert!(
        said.ends_with("f:1:1: this file is for a server: start it with `strait server`"),
        "{said}"
    );
}

#[test]
fn two_clients_of_one_machine_have_names_of_their_own_by_default() {
    let id = |port: &str| {
        let backend = strait_node::config::parse_backend(port, strait_node::config::Scheme::Http);
        let service = strait_node::config::ServiceConfig::new("web", backend.unwrap(), &[]);
        let over = Overrides {
            role: Some(RoleKind::Client),
            server: Some("https://a.example:1".parse().unwrap()),
            services: vec![service],
            ..Overrides::default()
        };
        let Role::Client(dial) = config(over).role else { panic!("not a client") };
        dial.id
    };
    assert_eq!(id("3000"), id("3000"));
    assert_ne!(id("3000"), id("3001"));
}
