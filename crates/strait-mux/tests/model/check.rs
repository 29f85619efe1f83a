//! What must hold after every step, and how a case ends.

use strait_mux::Accounts;
use strait_wire::{Frame, StreamNo};

use super::ops::Finale;
use super::world::World;

impl World {
    /// The invariants that hold at every moment.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        for (side, end) in self.ends.iter().enumerate() {
            end.mux.check().map_err(|what| format!("end {side}: {what}"))?;
        }
        if !self.ends.iter().any(|end| end.lost) {
            for side in 0..2 {
                self.credit_adds_up(side)?;
            }
        }
        self.broken.take().map_or(Ok(()), Err)
    }

    /// Sent + credit left = initial + granted: what the receiver has promised is with the
    /// sender, or under way as data, or under way as credit, or not told yet.
    fn credit_adds_up(&self, side: usize) -> Result<(), String> {
        let other = 1 - side;
        for no in self.ledger.keys() {
            let Some(receiver) = self.ends[other].mux.accounts(*no) else { continue };
            let Some(sender) = self.ends[side].mux.accounts(*no) else { continue };
            if !receiver.receiving || !sender.sending {
                continue;
            }
            let data = self.under_way(side, *no, |frame| match frame {
                Frame::Stream(frame) => frame.data.iter().map(|data| data.weight()).sum(),
                _ => 0,
            });
            let grants = self.under_way(other, *no, |frame| match frame {
                Frame::Credit(_, bytes) => *bytes as usize,
                _ => 0,
            });
            let Accounts { outstanding, credit_due, .. } = receiver;
            if outstanding != sender.credit + data + grants + credit_due {
                return Err(format!(
                    "request {no}: {outstanding} promised, {} with the sender, {data} sent, \
                     {grants} told, {credit_due} to be told",
                    sender.credit
                ));
            }
        }
        Ok(())
    }

    fn under_way(&self, side: usize, no: StreamNo, weight: impl Fn(&Frame) -> usize) -> usize {
        let of = |frame: &&Frame| match frame {
            Frame::Stream(frame) => frame.no == no,
            Frame::Credit(number, _) => *number == no,
            _ => false,
        };
        self.wires[side].iter().filter(of).map(weight).sum()
    }

    /// Everything under way arrives.
    pub(crate) fn settle(&mut self) {
        let moved = |world: &World| {
            world.ends.each_ref().map(|end| (end.mux.stats().frames_in, end.mux.stats().frames_out))
        };
        loop {
            let before = moved(self);
            for side in 0..2 {
                self.pull(side, usize::MAX);
                self.deliver(side, usize::MAX);
            }
            if before == moved(self) {
                return self.pings_are_answered();
            }
        }
    }

    /// Whatever the readers do: nobody has taken anything since the pings were sent.
    fn pings_are_answered(&mut self) {
        for side in 0..2 {
            if !self.ends.iter().any(|end| end.lost) && self.ends[side].mux.awaits_pong() {
                self.note(Err(format!("a ping of end {side} was not answered")));
            }
        }
    }

    /// Everything moves and all that wait are left to wait: only those that were told that
    /// there is something read it.
    fn flow(&mut self) {
        loop {
            self.settle();
            let mut moved = false;
            for side in 0..2 {
                for at in 0..self.ends[side].apps.len() {
                    while !self.ends[side].apps[at].waiting && self.take(side, at) {
                        moved = true;
                    }
                }
            }
            self.hear();
            // Asking for a body can be all that its sender has waited for.
            let asked = self.ends.iter_mut().any(|end| !end.lost && end.mux.has_frame());
            if !moved && !asked && self.wires.iter().all(|wire| wire.is_empty()) {
                break;
            }
        }
    }

    pub(crate) fn finish(mut self, finale: Finale) -> Result<(), String> {
        if self.ends.iter().any(|end| end.lost) {
            // The other end hears of it last.
            self.settle();
            (0..2).for_each(|side| self.lose(side));
        }
        match finale {
            Finale::Orderly => {
                self.flow();
                self.nobody_is_stuck()?;
                self.finish_all();
                self.check()?;
                self.all_have_ended()?;
            }
            Finale::Abandon => {}
            Finale::Lost => {
                self.lose(0);
                self.lose(1);
                self.flow();
                self.all_have_ended()?;
            }
        }
        self.drop_all();
        self.settle();
        // What was accepted only now is dropped too.
        self.drop_all();
        self.settle();
        self.check()?;
        self.is_empty()
    }

    /// All readers have read what there is, so no writer may be waiting, unless the other
    /// end has stopped to read.
    fn nobody_is_stuck(&mut self) -> Result<(), String> {
        self.check()?;
        for side in 0..2 {
            for at in 0..self.ends[side].apps.len() {
                let app = self.ends[side].apps[at];
                let heard = self.ends[1 - side]
                    .apps
                    .iter()
                    .any(|a| a.no == app.no && a.reader && !a.stalled);
                let queued = self.ends[side].mux.accounts(app.no).map_or(0, |a| a.queued);
                let alive = !self.ends.iter().any(|end| end.lost);
                if alive && heard && app.responded && (app.blocked || queued > 0) {
                    return Err(format!("stuck at {side} with {queued} bytes: {app:?}"));
                }
                if app.waiting && self.take(side, at) {
                    return Err(format!("a reader at {side} was not woken: {app:?}"));
                }
            }
        }
        Ok(())
    }

    fn finish_all(&mut self) {
        // Once for what is open, once for what comes in meanwhile.
        for _ in 0..2 {
            for side in 0..2 {
                for at in 0..self.ends[side].apps.len() {
                    self.respond(side, at);
                    self.end(side, at, true);
                }
            }
            self.flow();
        }
    }

    /// Every reader has seen exactly one end.
    fn all_have_ended(&mut self) -> Result<(), String> {
        for side in 0..2 {
            for app in &self.ends[side].apps {
                let other = self.ends[1 - side].apps.iter().find(|a| a.no == app.no);
                // A request ends when both its halves do: one whose other end has dropped
                // its writer properly, or holds none, has its end under way or here.
                if app.reader && !app.stalled && !app.ended && app.gone.is_none() {
                    return Err(format!("no end at {side}: {app:?}, the other: {other:?}"));
                }
            }
        }
        Ok(())
    }

    fn drop_all(&mut self) {
        for side in 0..2 {
            while !self.ends[side].apps.is_empty() {
                // In either order, by number.
                let app = self.ends[side].apps[0];
                if app.no.0.is_multiple_of(3) {
                    self.drop_writer(side, 0);
                } else if app.reader {
                    self.drop_reader(side, 0);
                } else {
                    self.drop_writer(side, 0);
                }
                if self.ends[side].apps.first().is_some_and(|a| a.no == app.no && a.reader) {
                    self.drop_reader(side, 0);
                }
            }
        }
    }

    fn is_empty(&mut self) -> Result<(), String> {
        for (side, end) in self.ends.iter_mut().enumerate() {
            let stats = end.mux.stats();
            let left = end.mux.pending() + end.budget.used() + stats.buffered;
            if left + stats.credit_outstanding + stats.opened + stats.accepted > 0 {
                return Err(format!("end {side} is not empty: {stats:?}, {:?}", end.mux));
            }
            if end.mux.has_frame() && !end.lost {
                return Err(format!("end {side} still has something to send"));
            }
        }
        Ok(())
    }
}
