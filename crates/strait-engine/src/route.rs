//! Which service a request is for: by host, path and protocol.

use std::collections::BTreeMap;

use strait_wire::{Protocol, Service};

/// What one rule of a service matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Protocols; empty: all.
    pub protocols: Vec<Protocol>,
    /// Host without port, in lower case: exact, `*.suffix`, or empty for any.
    pub host: String,
    /// Path prefix, matched at segment borders; empty: any.
    pub path: String,
}

impl Match {
    /// The rules of an announced service: one for each host, or one for all.
    pub fn of(service: &Service) -> Vec<Match> {
        let path = service.path_prefix.trim_end_matches('/').to_owned();
        let one = |host: &str| Match {
            protocols: service.protocols.clone(),
            host: host.to_ascii_lowercase(),
            path: path.clone(),
        };
        if service.hosts.is_empty() {
            vec![one("")]
        } else {
            service.hosts.iter().map(|h| one(h)).collect()
        }
    }

    fn takes(&self, protocol: Protocol, path: &[u8]) -> bool {
        let takes_protocol = self.protocols.is_empty() || self.protocols.contains(&protocol);
        let rest = path.strip_prefix(self.path.as_bytes());
        takes_protocol
            && rest.is_some_and(|r| r.is_empty() || r.starts_with(b"/") || self.path.is_empty())
    }

    /// What a rule says beside its protocols.
    pub(crate) fn place(&self) -> (String, String) {
        (self.host.clone(), self.path.clone())
    }
}

/// Rules and where they lead. The more exact rule wins: exact host before `*.suffix` before
/// any; then the longer path; then the rule that names protocols; then the earlier one.
#[derive(Debug)]
pub(crate) struct Table<T> {
    exact: BTreeMap<Vec<u8>, Vec<(Match, T)>>,
    /// Longest suffix first.
    suffix: Vec<(Match, T)>,
    any: Vec<(Match, T)>,
}

impl<T> Table<T> {
    pub(crate) fn new(rules: impl IntoIterator<Item = (Match, T)>) -> Table<T> {
        let mut table = Table { exact: BTreeMap::new(), suffix: Vec::new(), any: Vec::new() };
        for (rule, target) in rules {
            if rule.host.is_empty() {
                table.any.push((rule, target));
            } else if rule.host.starts_with("*.") {
                table.suffix.push((rule, target));
            } else {
                table.exact.entry(rule.host.clone().into_bytes()).or_default().push((rule, target));
            }
        }
        let rank = |(rule, _): &(Match, T)| {
            std::cmp::Reverse((rule.host.len(), rule.path.len(), !rule.protocols.is_empty()))
        };
        // Stable sorts: of equal rules the earlier one stays first.
        table.exact.values_mut().for_each(|rules| rules.sort_by_key(rank));
        table.suffix.sort_by_key(rank);
        table.any.sort_by_key(rank);
        table
    }

    /// Where a request leads.
    pub(crate) fn find(&self, protocol: Protocol, host: &[u8], path: &[u8]) -> Option<&T> {
        let lower;
        let host = if host.iter().any(u8::is_ascii_uppercase) {
            lower = host.to_ascii_lowercase();
            &lower
        } else {
            host
        };
        let first =
            |rules: &'_ [(Match, T)]| rules.iter().position(|(rule, _)| rule.takes(protocol, path));
        if let Some(rules) = self.exact.get(host)
            && let Some(i) = first(rules)
        {
            return Some(&rules[i].1);
        }
        let under = |(rule, _): &&(Match, T)| {
            // "*.example.org" covers "a.example.org", not "example.org".
            let suffix = &rule.host.as_bytes()[1..];
            host.len() > suffix.len() && host.ends_with(suffix) && rule.takes(protocol, path)
        };
        self.suffix
            .iter()
            .find(under)
            .map(|(_, t)| t)
            .or_else(|| first(&self.any).map(|i| &self.any[i].1))
    }
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table::new([])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(protocols: &[Protocol], host: &str, path: &str) -> Match {
        Match { protocols: protocols.to_vec(), host: host.into(), path: path.into() }
    }

    #[test]
    fn the_more_exact_rule_wins() {
        let table = Table::new([
            (rule(&[], "", ""), "any"),
            (rule(&[Protocol::Grpc], "", ""), "grpc"),
            (rule(&[], "", "/api"), "api"),
            (rule(&[], "*.example.org", ""), "wild"),
            (rule(&[], "*.deep.example.org", ""), "deep"),
            (rule(&[], "a.example.org", "/x"), "exact"),
        ]);
        let find = |protocol, host: &str, path: &str| {
            table.find(protocol, host.as_bytes(), path.as_bytes()).copied()
        };
        assert_eq!(find(Protocol::Http, "localhost", "/"), Some("any"));
        assert_eq!(find(Protocol::Grpc, "localhost", "/p.S/M"), Some("grpc"));
        assert_eq!(find(Protocol::Http, "localhost", "/api/v1"), Some("api"));
        assert_eq!(find(Protocol::Http, "localhost", "/apix"), Some("any"));
        assert_eq!(find(Protocol::Http, "B.Example.org", "/"), Some("wild"));
        assert_eq!(find(Protocol::Http, "b.deep.example.org", "/"), Some("deep"));
        assert_eq!(find(Protocol::Http, "example.org", "/"), Some("any"));
        assert_eq!(find(Protocol::Http, "a.example.org", "/x/y"), Some("exact"));
        assert_eq!(find(Protocol::Http, "a.example.org", "/y"), Some("wild"));
    }

    #[test]
    fn no_rule_no_route() {
        let table = Table::new([(rule(&[Protocol::Grpc], "a", "/p"), ())]);
        assert_eq!(table.find(Protocol::Http, b"a", b"/p"), None);
        assert_eq!(table.find(Protocol::Grpc, b"b", b"/p"), None);
        assert_eq!(table.find(Protocol::Grpc, b"a", b"/q"), None);
    }
}
