//! How many exchanges each visitor has under way.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use strait_wire::Reason;

use crate::Fault;
use crate::sync::{Mutex, MutexGuard};

/// Counts the exchanges of each visitor. It knows only visitors who have some, so there are
/// never more of them than exchanges. The addresses are theirs to choose: the hasher is one
/// that cannot be foreseen.
#[derive(Debug)]
pub(crate) struct Visitors {
    /// [`NONE`] when there is no such limit: then nothing is counted.
    most: AtomicUsize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

const NONE: usize = usize::MAX;

impl Visitors {
    /// At most `most` exchanges at once for each.
    pub(crate) fn new(most: Option<usize>) -> Arc<Visitors> {
        let most = AtomicUsize::new(most.unwrap_or(NONE));
        Arc::new(Visitors { most, open: Mutex::default() })
    }

    /// At most so many from now on; what is under way stays.
    pub(crate) fn limit(&self, most: Option<usize>) {
        self.most.store(most.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// A seat for one more exchange of the visitor at `address`; `None` where there is no limit.
    ///
    /// # Errors
    /// `ClientLimit` when he has as many as he may.
    pub(crate) fn seat(self: &Arc<Self>, address: SocketAddr) -> Result<Option<Box<Seat>>, Fault> {
        let most = self.most.load(Ordering::Relaxed);
        if most == NONE {
            return Ok(None);
        }
        let visitor = visitor(address.ip());
        let mut open = self.lock();
        let count = open.entry(visitor).or_default();
        if *count >= most {
            let detail = "max_exchanges_per_visitor is reached";
            return Err(Fault::because(Reason::ClientLimit, detail));
        }
        *count += 1;
        Ok(Some(Box::new(Seat { visitors: Arc::clone(self), visitor })))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One exchange of a visitor, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    visitors: Arc<Visitors>,
    visitor: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.visitors.lock();
        if let Some(count) = open.get_mut(&self.visitor) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.visitor);
            }
        }
    }
}

/// Whom an address stands for. One who has an address of IPv6 has the 64 bits behind it, too
/// (RFC 6177 2): he could be somebody else in each request.
fn visitor(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(visitors: &Arc<Visitors>, address: &str) -> Option<Box<Seat>> {
        let address = SocketAddr::new(address.parse().unwrap(), 4000);
        let seat = visitors.seat(address);
        seat.map_err(|fault| assert_eq!(fault.reason, Reason::ClientLimit)).ok().flatten()
    }

    #[test]
    fn each_visitor_has_his_seats_and_no_more() {
        let visitors = Visitors::new(Some(2));
        let one = seat(&visitors, "192.0.2.1");
        let two = seat(&visitors, "::ffff:192.0.2.1");
        assert!(one.is_some() && two.is_some());
        assert!(seat(&visitors, "192.0.2.1").is_none());
        assert!(seat(&visitors, "192.0.2.2").is_some());
        drop(one);
        assert!(seat(&visitors, "192.0.2.1").is_some());
        drop(two);
        assert!(visitors.lock().is_empty(), "nobody is remembered who has none");
    }

    #[test]
    fn without_a_limit_nobody_is_counted() {
        let visitors = Visitors::new(None);
        assert!(seat(&visitors, "192.0.2.1").is_none() && visitors.lock().is_empty());
        visitors.limit(Some(1));
        let one = seat(&visitors, "192.0.2.1");
        visitors.limit(None);
        assert!(one.is_some() && seat(&visitors, "192.0.2.1").is_none());
        drop(one);
        assert!(visitors.lock().is_empty(), "what was counted is given back");
    }

    #[test]
    fn a_refusal_leaves_nothing() {
        let visitors = Visitors::new(Some(1));
        let one = seat(&visitors, "192.0.2.1");
        for _ in 0..10 {
            assert!(seat(&visitors, "192.0.2.1").is_none());
        }
        drop(one);
        assert!(visitors.lock().is_empty());
    }

    #[test]
    fn a_network_of_64_bits_is_one_visitor() {
        let visitors = Visitors::new(Some(1));
        let _one = seat(&visitors, "2001:db8:0:1::1");
        assert!(seat(&visitors, "2001:db8:0:1:ffff:ffff:ffff:ffff").is_none());
        assert!(seat(&visitors, "2001:db8:0:2::1").is_some());
    }
}
