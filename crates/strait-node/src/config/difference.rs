//! What another configuration changes in a node that runs, and what it does not.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::{Config, EntryConfig, LogConfig, Role, TunnelDial, TunnelListen, default_client_id};

/// What another configuration changes, as keys of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// What is another at once.
    pub changed: Vec<String>,
    /// What stays as it is until the node is started again.
    pub waiting: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changed.as_slice() {
            [] => f.write_str("nothing changed"),
            changed => write!(f, "changed: {}", changed.join(", ")),
        }
    }
}

impl Difference {
    /// Tells in what `new` differs from the `old` that runs, and puts back into `new` whatever
    /// a running node cannot change: so `new` is what the node becomes.
    pub(crate) fn settle(old: &Config, new: &mut Config) -> Difference {
        let mut found = Difference::default();
        found.tunnel(old, new);
        found.entries(&old.entries, &mut new.entries);
        found.list("services", &old.services, &new.services, |service| &service.name);
        found.waits("admin", &old.admin, &mut new.admin);
        found.log(&old.log, &mut new.log);
        found.waits("limits.threads", &old.limits.threads, &mut new.limits.threads);
        let budget = &mut new.limits.process_budget;
        found.waits("limits.process_budget", &old.limits.process_budget, budget);
        let limits = new.limits.changed(&old.limits).into_iter().map(|key| format!("limits.{key}"));
        found.changed.extend(limits);
        let times = new.timeouts.changed(&old.timeouts).into_iter();
        found.changed.extend(times.map(|key| format!("timeouts.{key}")));
        found
    }

    fn tunnel(&mut self, old: &Config, new: &mut Config) {
        let derived = match &new.role {
            Role::Client(dial) => default_client_id(&dial.server, &new.services),
            Role::Server(_) => String::new(),
        };
        match (&old.role, &mut new.role) {
            (Role::Server(old), Role::Server(new)) => self.server(old, new),
            (Role::Client(old), Role::Client(new)) => self.client(old, new, &derived),
            (old, new) => {
                self.waiting.push("the kind of node".to_owned());
                *new = old.clone();
            }
        }
    }

    fn server(&mut self, old: &TunnelListen, new: &mut TunnelListen) {
        self.waits("server.listen", &old.listen, &mut new.listen);
        self.changes("server.tls", &old.tls, &new.tls);
        self.changes("server.insecure_no_auth", &old.insecure_no_auth, &new.insecure_no_auth);
        self.list("server.tokens", &old.tokens, &new.tokens, |rule| &rule.name);
    }

    fn client(&mut self, old: &TunnelDial, new: &mut TunnelDial, derived: &str) {
        if new.id == derived {
            // Nobody gave it: it comes from services, which may change.
            new.id.clone_from(&old.id);
        }
        self.waits("client.id", &old.id, &mut new.id);
        self.waits("client.once", &old.once, &mut new.once);
        self.waits("client.tunnels", &old.tunnels, &mut new.tunnels);
        self.changes("client.server", &old.server, &new.server);
        self.changes("client.token", &old.token, &new.token);
        self.changes("client.ca", &old.ca, &new.ca);
        self.changes("client.pin", &old.pin, &new.pin);
    }

    /// An entry is known by its name. Sockets stay as they are.
    fn entries(&mut self, old: &[EntryConfig], new: &mut Vec<EntryConfig>) {
        let mut given = std::mem::take(new);
        for old in old {
            let key = format!("entries.{}", old.name);
            let Some(place) = given.iter().position(|entry| entry.name == old.name) else {
                self.waiting.push(format!("{key} (gone)"));
                new.push(old.clone());
                continue;
            };
            let mut entry = given.remove(place);
            self.waits(&format!("{key}.listen"), &old.listen, &mut entry.listen);
            self.changes(&key, old, &entry);
            new.push(entry);
        }
        self.waiting.extend(given.iter().map(|entry| format!("entries.{} (new)", entry.name)));
    }

    fn log(&mut self, old: &LogConfig, new: &mut LogConfig) {
        self.waits("log.format", &old.format, &mut new.format);
        self.waits("log.access", &old.access, &mut new.access);
        self.changes("log.level", &old.level, &new.level);
    }

    fn changes<T: PartialEq>(&mut self, key: &str, old: &T, new: &T) {
        if old != new {
            self.changed.push(key.to_owned());
        }
    }

    fn waits<T: PartialEq + Clone>(&mut self, key: &str, old: &T, new: &mut T) {
        if old != new {
            self.waiting.push(key.to_owned());
            new.clone_from(old);
        }
    }

    /// What is known by its name: changed, new and gone.
    fn list<T: PartialEq>(&mut self, key: &str, old: &[T], new: &[T], name: fn(&T) -> &String) {
        let before: HashMap<&String, &T> = old.iter().map(|item| (name(item), item)).collect();
        let now: HashSet<&String> = new.iter().map(name).collect();
        for item in new {
            match before.get(name(item)) {
                Some(old) => self.changes(&format!("{key}.{}", name(item)), *old, item),
                None => self.changed.push(format!("{key}.{} (new)", name(item))),
            }
        }
        let gone = old.iter().map(name).filter(|name| !now.contains(name));
        self.changed.extend(gone.map(|name| format!("{key}.{name} (gone)")));
    }
}
