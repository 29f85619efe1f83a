//! Wrong credentials by address: each further one is answered later.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Even the first wrong credential is answered late, yet within a second: that may be a person
/// who mistyped it.
pub const FIRST_REFUSAL: Duration = Duration::from_millis(300);

/// Wrong credentials that are answered so soon.
const PATIENCE: u32 = 3;

/// The longest that an answer is held back. Strait's own client waits twice as long.
pub const LONGEST_REFUSAL: Duration = Duration::from_secs(5);

/// An address from which none came for so long begins anew.
const MEMORY: Duration = Duration::from_secs(60);

/// Addresses that are remembered; of more, those whose last failure is oldest are forgotten.
const MOST: usize = 4096;

/// Wrong credentials of late. Right ones are never held up, whatever came from their address:
/// many people may share it.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<IpAddr, Failed>>);

#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    last: Instant,
}

impl Failures {
    /// Counts a wrong credential from `address`; how long to wait before saying so.
    pub(crate) fn pause(&self, address: IpAddr, now: Instant) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = whole(address);
        if all.len() >= MOST && !all.contains_key(&address) {
            forget(&mut all, now);
        }
        let failed = all.entry(address).or_insert(Failed { times: 0, last: now });
        if now.saturating_duration_since(failed.last) >= MEMORY {
            failed.times = 0;
        }
        failed.times = failed.times.saturating_add(1);
        failed.last = now;
        let doublings = failed.times.saturating_sub(PATIENCE).min(16);
        FIRST_REFUSAL.saturating_mul(1 << doublings).min(LONGEST_REFUSAL)
    }
}

/// Makes room for one more.
fn forget(all: &mut HashMap<IpAddr, Failed>, now: Instant) {
    all.retain(|_, failed| now.saturating_duration_since(failed.last) < MEMORY);
    if all.len() >= MOST {
        let oldest = all.iter().min_by_key(|(_, failed)| failed.last).map(|(address, _)| *address);
        oldest.and_then(|address| all.remove(&address));
    }
}

/// What one caller has to itself: of IPv6 that is a network (RFC 4291 2.5.4).
fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_further_one_waits_longer_and_a_pause_is_forgiven() {
        let (failures, start) = (Failures::default(), Instant::now());
        let pauses: Vec<u128> =
            (0..9).map(|_| failures.pause(from("10.0.0.1"), start).as_millis()).collect();
        assert_eq!(pauses, [300, 300, 300, 600, 1200, 2400, 4800, 5000, 5000]);
        assert_eq!(failures.pause(from("10.0.0.2"), start), FIRST_REFUSAL, "another address");
        let later = start + MEMORY;
        assert_eq!(failures.pause(from("10.0.0.1"), later), FIRST_REFUSAL);
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller_and_so_is_a_mapped_address() {
        let (failures, now) = (Failures::default(), Instant::now());
        for n in 0..4 {
            failures.pause(from(&format!("2001:db8::{n}")), now);
            failures.pause(from("::ffff:10.0.0.1"), now);
        }
        assert!(failures.pause(from("2001:db8::ff"), now) > FIRST_REFUSAL);
        assert!(failures.pause(from("10.0.0.1"), now) > FIRST_REFUSAL);
        assert_eq!(failures.pause(from("2001:db8:0:1::1"), now), FIRST_REFUSAL);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stay() {
        let (failures, now) = (Failures::default(), Instant::now());
        let many = MOST as u32 + 100;
        for n in 0..many {
            let address = std::net::Ipv4Addr::from(n).into();
            failures.pause(address, now + Duration::from_micros(u64::from(n)));
        }
        let all = failures.0.lock().unwrap();
        assert_eq!(all.len(), MOST);
        assert!(all.contains_key(&std::net::Ipv4Addr::from(many - 1).into()));
        assert!(!all.contains_key(&std::net::Ipv4Addr::from(0).into()));
    }
}
