//! Who is measured: Strait, the backend itself, and other tunnels to the same backend.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::caller::Callers;
use super::meter::Part;
use super::usage;
use super::world::World;

/// The name of this program among its peers.
pub(crate) const STRAIT: &str = "strait";
/// The name of the backend, reached without a tunnel.
pub(crate) const DIRECT: &str = "direct";

/// Another tunnel, as it is told on the command line: `NAME=HOST:PORT[,PID…]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Beside {
    name: String,
    address: SocketAddr,
    pids: Vec<u32>,
}

impl Beside {
    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Reads `rathole=127.0.0.1:9001,1234,1235`.
///
/// # Errors
/// What is possible, in words.
pub(crate) fn beside(text: &str) -> Result<Beside, String> {
    let help = "write it like rathole=127.0.0.1:9001 or rathole=127.0.0.1:9001,PID,PID";
    let (name, rest) = text.split_once('=').ok_or_else(|| format!("no name: {help}"))?;
    if name.is_empty() || name.chars().count() > 16 || name.chars().any(char::is_control) {
        return Err(format!("a name has 1 to 16 characters: {help}"));
    }
    if [STRAIT, DIRECT].contains(&name) {
        return Err(format!("{name:?} is measured anyway or with --direct: choose another name"));
    }
    let mut words = rest.split(',');
    let address = words.next().unwrap_or_default();
    let address = address.to_socket_addrs().ok().and_then(|mut found| found.next());
    let address = address.ok_or_else(|| format!("no address HOST:PORT: {help}"))?;
    let pid = |word: &str| word.parse().map_err(|_| format!("{word:?} is no process id: {help}"));
    Ok(Beside { name: name.to_owned(), address, pids: words.map(pid).collect::<Result<_, _>>()? })
}

/// One that is measured.
pub(crate) struct Contestant {
    pub(crate) name: String,
    /// Where its visitors come in.
    pub(crate) entry: SocketAddr,
    /// Its processes.
    pub(crate) parts: Vec<Part>,
    /// Whether those are all: else nobody knows what it costs, nor what others took.
    pub(crate) known: bool,
    /// Visitors with small requests. Their connections are kept from phase to phase.
    pub(crate) callers: Arc<Callers>,
}

impl Contestant {
    fn new(name: &str, entry: SocketAddr, parts: Vec<Part>, known: bool) -> Contestant {
        let callers = Arc::new(Callers::new(entry));
        Contestant { name: name.to_owned(), entry, parts, known, callers }
    }

    /// All that take part, Strait first.
    pub(crate) fn all(world: &World, direct: bool, besides: &[Beside]) -> Vec<Contestant> {
        let mut all = vec![Contestant::new(STRAIT, world.entry, world.parts().to_vec(), true)];
        if direct {
            all.push(Contestant::new(DIRECT, world.direct, Vec::new(), true));
        }
        for Beside { name, address, pids } in besides {
            let mut family: Vec<u32> = pids.iter().flat_map(|pid| usage::family(*pid)).collect();
            family.sort_unstable();
            family.dedup();
            let parts = Part::new(name, family);
            all.push(Contestant::new(name, *address, vec![parts], !pids.is_empty()));
        }
        all
    }

    /// Its process ids.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.parts.iter().flat_map(|part| part.pids.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_name_an_address_and_perhaps_processes() {
        let found = beside("a b=127.0.0.1:9001,12,13").unwrap();
        assert_eq!((found.name.as_str(), found.address.port()), ("a b", 9001));
        assert_eq!(found.pids, [12, 13]);
        assert!(beside("a=127.0.0.1:1").unwrap().pids.is_empty());
        for wrong in ["", "a", "=127.0.0.1:1", "a=nowhere", "a=127.0.0.1:1,x", "strait=127.0.0.1:1"]
        {
            assert!(beside(wrong).is_err(), "{wrong}");
        }
    }
}
