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
/// Each mistake of a file and all that is said about it: in mistakes.golden a file stands
/// before lines of `=> `, and an empty line after them. With STRAIT_GOLDEN=1 the page is
/// written anew.
#[test]
fn each_mistake_is_told_with_its_place() {
    let page = include_str!("mistakes.golden");
    let folder = Folder::new("mistakes");
    let mut fresh = Vec::new();
    for case in page.split("\n\n") {
        let text: String =
            case.lines().take_while(|l| !l.starts_with("=> ")).map(|l| format!("{l}\n")).collect();
        let said = match read(&folder.write("f", &text)) {
            Ok(_) => "good".to_owned(),
            Err(said) => said.replace(&format!("{}/", folder.0.display()), ""),
        };
        fresh.push(said.lines().fold(text, |case, line| format!("{case}=> {line}\n")));
    }
    let fresh = fresh.join("\n");
    if std::env::var_os("STRAIT_GOLDEN").is_some() {
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mistakes.golden"), &fresh).unwrap();
        return;
    }
    for (found, expected) in fresh.lines().zip(page.lines()) {
        assert_eq!(found, expected, "run with STRAIT_GOLDEN=1 to write what is found");
    }
    assert_eq!(fresh.len(), page.len());
    assert!(!page.contains("=> good"), "a mistake that is none");
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
fn authorities_of_a_service_are_checked_too() {
    let folder = Folder::new("authorities");
    let made = DevelopmentCertificate::make().unwrap();
    folder.write("ca.pem", made.cert_pem());
    folder.write("key.pem", made.key_pem());
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    folder.write("nonsense.pem", nonsense);
    let read = |ca: &str| {
        let service = "[[services]]\nname = \"a\"\nbackend = \"https://a.example\"";
        let text = format!("{OPEN}{service}\nca = \"{ca}\"\n");
        let said =
            read(&folder.write("f", text)).map(|loaded| loaded.config.services[0].ca.clone());
        said.map_err(|said| said.replace(&format!("{}/", folder.0.display()), ""))
    };
    assert_eq!(read("ca.pem"), Ok(Some(folder.0.join("ca.pem"))));
    assert_eq!(read("key.pem"), Err("f:6:6: `ca`: key.pem holds no PEM certificate".to_owned()));
    let said = read("nonsense.pem").unwrap_err();
    assert!(said.starts_with("f:6:6: `ca`: nonsense.pem: invalid peer certificate"), "{said}");
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

#[test]
fn to_trust_everybody_as_a_proxy_is_a_warning() {
    let folder = Folder::new("proxies");
    for (keys, warned) in [
        ("trusted_proxies = [\"10.0.0.0/8\", \"fd00::1\", \"::ffff:10.0.0.1\"]", 0),
        ("trusted_proxies = \"127.0.0.1\"", 0),
        ("trusted_proxies = [\"10.0.0.0/8\", \"0.0.0.0/0\"]", 1),
        ("trusted_proxies = \"::/0\"", 1),
        ("proxy_protocol = true", 1),
        ("proxy_protocol = true\ntrusted_proxies = \"127.0.0.1\"", 0),
        ("proxy_protocol = false", 0),
    ] {
        let text = format!("{OPEN}[[entries]]\nlisten = 80\n{keys}\n");
        let warnings = read(&folder.write("f", text)).unwrap().warnings;
        assert_eq!(warnings.len(), warned, "{keys}: {warnings:?}");
        assert!(warnings.iter().all(|line| line.contains("f:5:")), "{warnings:?}");
    }
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
    let proxies: Vec<String> =
        config.entries[0].trusted_proxies.iter().map(|network| network.to_string()).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "::1/128"]);
    assert!(config.entries[1].cors_origins.is_empty());
    assert!(config.entries[1].trusted_proxies.is_empty());
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
