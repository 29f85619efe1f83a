//! Services on the command line: `http 3000 --host a.example grpc 50051 --path /x`. What
//! follows a pair of kind and target belongs to it, so their order matters.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use strait_node::config::{
    Scheme, ServiceConfig, nearest, parse_backend, parse_host_header, parse_host_pattern,
    parse_name, parse_path_prefix,
};
use strait_wire::Protocol;

/// Services of a client: words of their own.
#[derive(Debug, Default)]
pub(crate) struct ClientServices(pub(crate) Vec<ServiceConfig>);

/// Services of a server: each begins with `--expose`.
#[derive(Debug, Default)]
pub(crate) struct ServerServices(pub(crate) Vec<ServiceConfig>);

const HEADING: &str = "Services";

/// The flags that belong to the service before them.
const FLAGS: [(&str, &str, &str); 4] = [
    ("host", "NAME", "Host that the service answers to, also *.example.org; repeatable"),
    ("path", "PREFIX", "Paths that it answers to, like /api"),
    ("host-header", "HOST", "Host that the backend sees, instead of the visitor's"),
    ("name", "NAME", "The service's name in logs and status"),
];

fn flags(mut command: Command) -> Command {
    for (id, value, help) in FLAGS {
        let flag = Arg::new(id).long(id).value_name(value).help(help);
        command = command.arg(flag.action(ArgAction::Append).help_heading(HEADING));
    }
    command
}

impl Args for ClientServices {
    fn augment_args(command: Command) -> Command {
        let words = Arg::new("services")
            .value_names(["KIND", "TARGET"])
            .help("What to offer: http or grpc, and a port, host:port or address; repeatable")
            .num_args(0..)
            .action(ArgAction::Append);
        flags(command.arg(words))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl Args for ServerServices {
    fn augment_args(command: Command) -> Command {
        let expose = Arg::new("services")
            .long("expose")
            .value_names(["KIND", "TARGET"])
            .help("Offer a service to the clients: --expose http 4000, --expose grpc 50051")
            .num_args(2)
            .action(ArgAction::Append)
            .help_heading(HEADING);
        flags(command.arg(expose))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ClientServices {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        services(matches).map(ClientServices)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0 = services(matches)?;
        Ok(())
    }
}

impl FromArgMatches for ServerServices {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        services(matches).map(ServerServices)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0 = services(matches)?;
        Ok(())
    }
}

fn wrong(message: impl std::fmt::Display) -> Error {
    Error::raw(ErrorKind::ValueValidation, format!("{message}\n"))
}

/// All words with these ids, in the order of the command line.
fn in_order(matches: &ArgMatches) -> Vec<(&'static str, String)> {
    let mut found: Vec<(usize, &'static str, String)> = Vec::new();
    for id in ["services"].into_iter().chain(FLAGS.map(|(id, ..)| id)) {
        let values = matches.get_many::<String>(id).into_iter().flatten();
        let places = matches.indices_of(id).into_iter().flatten();
        found.extend(values.zip(places).map(|(value, at)| (at, id, value.clone())));
    }
    found.sort_by_key(|(at, ..)| *at);
    found.into_iter().map(|(_, id, value)| (id, value)).collect()
}

fn services(matches: &ArgMatches) -> Result<Vec<ServiceConfig>, Error> {
    let mut services: Vec<ServiceConfig> = Vec::new();
    let mut named: Vec<bool> = Vec::new();
    let mut words = in_order(matches).into_iter().peekable();
    while let Some((id, word)) = words.next() {
        if id == "services" {
            let kind = Kind::parse(&word).map_err(wrong)?;
            let target = words.next_if(|(id, _)| *id == "services").ok_or_else(|| {
                wrong(format!("{word} needs a target: {word} 3000, or {word} host:3000"))
            })?;
            services.push(kind.service(&target.1).map_err(wrong)?);
            named.push(false);
            continue;
        }
        let flag = format!("--{id}");
        let said = |error: String| wrong(format!("{flag}: {error}"));
        let Some(service) = services.last_mut() else {
            return Err(wrong(format!(
                "{flag} belongs to the service before it; write it behind one, like \
                 http 3000 {flag} {word}"
            )));
        };
        match id {
            "host" => service.hosts.push(parse_host_pattern(&word).map_err(said)?),
            "path" => service.path_prefix = parse_path_prefix(&word).map_err(said)?,
            "host-header" => service.host_override = Some(parse_host_header(&word).map_err(said)?),
            _ => {
                service.name = parse_name(&word).map_err(said)?;
                if let Some(last) = named.last_mut() {
                    *last = true;
                }
            }
        }
    }
    make_unique(&mut services, &named);
    Ok(services)
}

/// Names that nobody chose may meet: `http 3000 --host a http 3000 --host b`.
fn make_unique(services: &mut [ServiceConfig], named: &[bool]) {
    for i in 0..services.len() {
        let (before, rest) = services.split_at_mut(i);
        let (Some(service), Some(false)) = (rest.first_mut(), named.get(i)) else { continue };
        let base = service.name.clone();
        let mut number = 2;
        while before.iter().any(|other| other.name == service.name) {
            service.name = format!("{base}-{number}");
            number += 1;
        }
    }
}

/// What a service speaks.
#[derive(Clone, Copy)]
enum Kind {
    Http,
    Grpc,
}

impl Kind {
    fn parse(word: &str) -> Result<Kind, String> {
        match word {
            "http" => Ok(Kind::Http),
            "grpc" => Ok(Kind::Grpc),
            "https" => Err("https is no kind; write http https://HOST:PORT".to_owned()),
            "ws" | "wss" | "websocket" => {
                Err(format!("{word} is no kind; http takes WebSocket as well: http 3000"))
            }
            "tcp" | "udp" | "tls" | "ssh" | "raw" | "socks" | "socks5" | "stcp" => Err(format!(
                "{word} is not carried: Strait understands HTTP, WebSocket and gRPC; write \
                 http 3000 or grpc 50051"
            )),
            _ if word.starts_with(|c: char| c.is_ascii_digit()) || word.contains(':') => {
                Err(format!("say what {word} speaks: http {word}, or grpc {word}"))
            }
            _ => {
                let near = nearest(word, &["http", "grpc"]);
                let near = near.map_or(String::new(), |near| format!(" (did you mean {near}?)"));
                Err(format!("{word:?} is no kind of service{near}; allowed: http, grpc"))
            }
        }
    }

    fn service(self, target: &str) -> Result<ServiceConfig, String> {
        let (kind, scheme, protocols) = match self {
            Kind::Http => ("http", Scheme::Http, &[Protocol::Http, Protocol::WebSocket][..]),
            Kind::Grpc => ("grpc", Scheme::H2c, &[Protocol::Grpc][..]),
        };
        let backend = parse_backend(target, scheme).map_err(|error| format!("{kind}: {error}"))?;
        let mut tail: String = target.split("://").last().unwrap_or(target).to_owned();
        tail.retain(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/'));
        let tail = tail.replace([':', '/'], "-");
        let name: String = format!("{kind}-{}", tail.trim_matches('-')).chars().take(56).collect();
        Ok(ServiceConfig::new(&name, backend, protocols))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Vec<ServiceConfig>, String> {
        let command = ClientServices::augment_args(Command::new("client"))
            .arg(Arg::new("server").long("server"));
        let words = std::iter::once("client").chain(line.split_whitespace());
        let matches = command.try_get_matches_from(words).map_err(|error| error.to_string())?;
        services(&matches).map_err(|error| error.to_string())
    }

    fn short(service: &ServiceConfig) -> String {
        let ServiceConfig { name, backend, hosts, path_prefix, .. } = service;
        format!("{name} {backend} {} {path_prefix}", hosts.join("+"))
    }

    #[test]
    fn flags_belong_to_the_service_before_them() {
        let line = "http 3000 --host a.example --server x --host b.example grpc 50051 --path /pkg. \
                    http app:80 --name front";
        let found: Vec<String> = parse(line).unwrap().iter().map(short).collect();
        assert_eq!(
            found,
            [
                "http-3000 http://localhost:3000 a.example+b.example /",
                "grpc-50051 h2c://localhost:50051  /pkg.",
                "front http://app:80  /",
            ]
        );
    }

    #[test]
    fn names_are_unique_without_being_given() {
        let line = "http 3000 --host a http 3000 --host b http unix:/run/a.sock";
        let names: Vec<String> =
            parse(line).unwrap().into_iter().map(|service| service.name).collect();
        assert_eq!(names, ["http-3000", "http-3000-2", "http-unix--run-a.sock"]);
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (line, expected) in [
            ("tcp 22", "HTTP, WebSocket and gRPC"),
            ("ws 3000", "http takes WebSocket as well"),
            ("https 3000", "http https://HOST:PORT"),
            ("3000", "http 3000, or grpc 3000"),
            ("htp 3000", "did you mean http?"),
            ("http", "needs a target"),
            ("http --host a", "needs a target"),
            ("http 3000 grpc", "grpc needs a target"),
            ("http 99999", "1 to 65535"),
            ("http ftp://x:1", "scheme"),
            ("--host a.example http 3000", "http 3000 --host a.example"),
            ("http 3000 --path api", "must begin with '/'"),
            ("http 3000 --host http://a", "is not a host"),
            ("http 3000 --name a/b", "letters"),
        ] {
            let said = parse(line).unwrap_err();
            assert!(said.contains(expected), "{line}: {said}");
        }
    }
}
