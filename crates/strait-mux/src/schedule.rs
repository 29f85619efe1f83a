//! Whose turn it is: deficit round robin with new flows before old ones, as in fq_codel
//! (RFC 8290 4.2), so that what just became sendable is served first once and then takes
//! its turn. Every operation is O(1) amortised.

use std::collections::VecDeque;

use strait_wire::StreamNo;

/// Bytes of new requests that go before a piece of an old one. On a link that new requests
/// alone can fill, old ones would otherwise stand still.
const NEW_RUN: usize = 64 * 1024;

/// The lists of requests that have something to send.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    new: VecDeque<StreamNo>,
    old: VecDeque<StreamNo>,
    /// Bytes of new requests since the last piece of an old one.
    new_run: usize,
}

/// A request's place in the schedule.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    list: Option<List>,
    deficit: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    New,
    Old,
}

/// The requests, as the schedule sees them.
pub(crate) trait Flows {
    /// The place of a request, its quantum in bytes, and whether it can send now; `None`
    /// when it is no more.
    fn turn(&mut self, no: StreamNo) -> Option<(&mut Turn, usize, bool)>;
}

impl Schedule {
    /// Puts a request that became sendable in line.
    pub(crate) fn enlist(&mut self, no: StreamNo, turn: &mut Turn, quantum: usize) {
        if turn.list.is_none() {
            turn.list = Some(List::New);
            turn.deficit = quantum as i64;
            self.new.push_back(no);
        }
    }

    /// The request whose turn it is. It stays in line until it is found unable to send.
    pub(crate) fn next(&mut self, flows: &mut impl Flows) -> Option<StreamNo> {
        loop {
            let (list, no) = match (self.new.front(), self.old.front()) {
                (Some(_), Some(no)) if self.new_run >= NEW_RUN => (List::Old, *no),
                (Some(no), _) => (List::New, *no),
                (None, Some(no)) => (List::Old, *no),
                (None, None) => return None,
            };
            // A request may be gone, or be a leftover of another list.
            let Some((turn, quantum, sendable)) =
                flows.turn(no).filter(|(turn, ..)| turn.list == Some(list))
            else {
                self.pop(list);
                continue;
            };
            if sendable && turn.deficit > 0 {
                return Some(no);
            }
            self.pop(list);
            if sendable {
                turn.deficit += quantum as i64;
            }
            // One that ran empty on the new list goes through the old one before it can be
            // new again: else a flow that empties itself in every turn would starve others.
            if sendable || list == List::New {
                turn.list = Some(List::Old);
                self.old.push_back(no);
            } else {
                turn.list = None;
            }
        }
    }

    /// Counts `bytes` that were sent by the request whose place is `turn`.
    pub(crate) fn serve(&mut self, turn: &mut Turn, bytes: usize) {
        turn.deficit -= bytes as i64;
        match turn.list {
            Some(List::New) => self.new_run += bytes,
            Some(List::Old) | None => self.new_run = 0,
        }
    }

    /// Whether at most one request is in line.
    pub(crate) fn is_alone(&self) -> bool {
        self.new.len() + self.old.len() <= 1
    }

    /// Whether `no`, whose place is `turn`, stands in the line that it believes to stand in.
    /// Linear: for tests.
    pub(crate) fn holds(&self, no: StreamNo, turn: &Turn) -> bool {
        match turn.list {
            Some(List::New) => self.new.contains(&no),
            Some(List::Old) => self.old.contains(&no),
            None => false,
        }
    }

    fn pop(&mut self, list: List) {
        match list {
            List::New => self.new.pop_front(),
            List::Old => self.old.pop_front(),
        };
    }
}

impl Turn {
    /// Leaves the line for good; leftovers in the lists are skipped.
    pub(crate) fn leave(&mut self) {
        self.list = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[derive(Default)]
    struct Bench {
        schedule: Schedule,
        flows: HashMap<StreamNo, (Turn, usize)>,
    }

    impl Flows for HashMap<StreamNo, (Turn, usize)> {
        fn turn(&mut self, no: StreamNo) -> Option<(&mut Turn, usize, bool)> {
            self.get_mut(&no).map(|(turn, queued)| (turn, 100, *queued > 0))
        }
    }

    impl Bench {
        fn add(&mut self, no: u64, queued: usize) {
            let flow = self.flows.entry(StreamNo(no)).or_default();
            flow.1 += queued;
            self.schedule.enlist(StreamNo(no), &mut flow.0, 100);
        }

        fn serve(&mut self, piece: usize) -> Option<u64> {
            let no = self.schedule.next(&mut self.flows)?;
            let flow = self.flows.get_mut(&no)?;
            let sent = flow.1.min(piece);
            flow.1 -= sent;
            self.schedule.serve(&mut flow.0, sent);
            Some(no.0)
        }
    }

    #[test]
    fn a_new_flow_goes_before_old_ones_once() {
        let mut bench = Bench::default();
        bench.add(1, 10_000);
        bench.add(2, 10_000);
        for _ in 0..6 {
            bench.serve(100);
        }
        bench.add(3, 10_000);
        assert_eq!(bench.serve(100), Some(3));
        let turns: Vec<_> = (0..6).filter_map(|_| bench.serve(100)).collect();
        assert_eq!(turns.iter().filter(|no| **no == 3).count(), 2, "{turns:?}");
    }

    #[test]
    fn shares_are_equal_in_bytes_whatever_the_piece() {
        let mut bench = Bench::default();
        bench.add(1, 100_000);
        bench.add(2, 100_000);
        for _ in 0..400 {
            let no = bench.schedule.next(&mut bench.flows).expect("both have data");
            let flow = bench.flows.get_mut(&no).expect("known");
            let piece = if no.0 == 1 { 100 } else { 10 };
            flow.1 -= piece;
            bench.schedule.serve(&mut flow.0, piece);
        }
        let sent: Vec<usize> =
            [1, 2].iter().map(|n| 100_000 - bench.flows[&StreamNo(*n)].1).collect();
        assert!(sent[0].abs_diff(sent[1]) <= 200, "{sent:?}");
    }

    #[test]
    fn a_flow_that_empties_itself_in_every_turn_does_not_starve_another() {
        let mut bench = Bench::default();
        bench.add(1, 1_000_000);
        let mut served = [0; 3];
        for _ in 0..100 {
            bench.add(2, 100);
            let no = bench.serve(100).expect("there is data");
            served[no as usize] += 1;
        }
        assert!(served[1] >= 40, "{served:?}");
    }

    #[test]
    fn two_flows_that_take_turns_to_be_empty_do_not_starve_a_third() {
        let mut bench = Bench::default();
        bench.add(1, 1_000_000);
        // It had its turn as a new one; from now on the others are never behind.
        (0..3).for_each(|_| assert_eq!(bench.serve(50), Some(1)));
        let mut served = [0; 4];
        let mut next = 2;
        for _ in 0..90 {
            bench.add(next, 50);
            let no = bench.serve(50).expect("there is data");
            served[no as usize] += 1;
            next = 5 - next;
        }
        assert!(served[1] >= 25, "{served:?}");
    }

    #[test]
    fn a_flow_that_is_gone_does_not_stall_the_line() {
        let mut bench = Bench::default();
        for no in 1..=3 {
            bench.add(no, 1_000);
        }
        bench.flows.remove(&StreamNo(1));
        bench.flows.get_mut(&StreamNo(2)).expect("known").0.leave();
        assert_eq!(bench.serve(100), Some(3));
    }
}
