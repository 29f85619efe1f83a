//! Two muxes, the wire between them, and what happens to both.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use strait_mux::{Budget, Event, Mux};
use strait_wire::{Frame, Hello, Reason, Side, StreamNo, codec};

use super::app::App;
use super::ledger::Request;
use super::ops::{Op, Plan};
use super::turns::Turns;

pub(crate) struct End {
    pub(crate) mux: Mux,
    pub(crate) budget: Budget,
    pub(crate) apps: Vec<App>,
    pub(crate) lost: bool,
}

pub(crate) struct World {
    pub(crate) ends: [End; 2],
    /// Frames under way from each end.
    pub(crate) wires: [VecDeque<Frame>; 2],
    /// By number: parity tells the opener.
    pub(crate) ledger: HashMap<StreamNo, Request>,
    pub(crate) now: Instant,
    codec: bool,
    /// Who waits for a turn at each end.
    turns: [Turns; 2],
    pub(crate) broken: Option<String>,
}

/// Runs `plan` to its end. Every broken invariant is an error with the step that broke it.
pub(crate) fn run(plan: &Plan) -> Result<(), String> {
    let mut world = World::new(plan);
    for (at, op) in plan.ops.iter().enumerate() {
        world.step(op);
        world.check().map_err(|what| format!("step {at}, {op:?}: {what}"))?;
    }
    world.finish(plan.finale)
}

const SIDES: [Side; 2] = [Side::Dialer, Side::Listener];

impl World {
    pub(crate) fn new(plan: &Plan) -> World {
        let now = Instant::now();
        let end = |i: usize| {
            let budget = Budget::new(plan.budgets[i]);
            let settings = plan.settings[i].clone();
            let mux = Mux::new(SIDES[i], settings, budget.clone(), Hello::default(), now);
            End { mux, budget, apps: Vec::new(), lost: false }
        };
        World {
            ends: [end(0), end(1)],
            wires: Default::default(),
            ledger: HashMap::new(),
            now,
            codec: plan.codec,
            turns: Default::default(),
            broken: None,
        }
    }

    /// Notes the first thing that is wrong.
    pub(crate) fn note(&mut self, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            self.broken.get_or_insert(what);
        }
    }

    pub(crate) fn step(&mut self, op: &Op) {
        match *op {
            Op::Open { side, protocol, body, waits, head } => {
                self.open(side, protocol, body, waits, head);
            }
            Op::Respond { side, pick } => self.each(side, pick, Self::respond),
            Op::Push { side, pick, size, shape } => {
                self.each(side, pick, |world, side, at| world.push(side, at, size, shape));
            }
            Op::Finish { side, pick, trailers } => {
                self.each(side, pick, |world, side, at| world.end(side, at, trailers));
            }
            Op::Take { side, pick, parts } => self.each(side, pick, |world, side, at| {
                (0..parts).for_each(|_| {
                    world.take(side, at);
                });
            }),
            Op::Reset { side, pick, retry_safe } => self.each(side, pick, |world, side, at| {
                let app = world.ends[side].apps[at];
                // Who opened a request does not tell the other that nothing was done.
                let retry_safe = retry_safe && !app.ours && !app.responded;
                if retry_safe && let Some(request) = world.ledger.get_mut(&app.no) {
                    request.excused = true;
                }
                world.touch(app.no);
                world.ends[side].mux.reset(app.no, Reason::BackendReset, retry_safe, "");
            }),
            Op::DropReader { side, pick } => self.each(side, pick, Self::drop_reader),
            Op::DropWriter { side, pick } => self.each(side, pick, Self::drop_writer),
            Op::Stall { side, pick } => self.each(side, pick, |world, side, at| {
                world.ends[side].apps[at].stalled = true;
            }),
            Op::Pull { side, frames } => self.pull(side, frames),
            Op::Deliver { side, frames } => self.deliver(side, frames),
            Op::Tick { millis } => self.tick(millis),
            Op::Drain { side } => self.ends[side].mux.drain(),
            Op::Goodbye { side } => self.ends[side].mux.goodbye(Reason::None, ""),
            Op::Lose { side } => self.lose(side),
            Op::Settle => self.settle(),
            Op::DropFrame { side } => drop(self.wires[side].pop_front()),
        }
        self.hear();
    }

    pub(crate) fn touch(&mut self, no: StreamNo) {
        self.ledger.get_mut(&no).expect("known").touched = true;
    }

    fn each(&mut self, side: usize, pick: usize, act: impl FnOnce(&mut World, usize, usize)) {
        let held = self.ends[side].apps.len();
        if held > 0 {
            act(self, side, pick % held);
        }
    }

    pub(crate) fn pull(&mut self, side: usize, frames: usize) {
        for _ in 0..frames {
            let end = &mut self.ends[side];
            let promised = end.mux.has_frame();
            let lines = end.mux.lines();
            let frame = end.mux.next_frame(self.now);
            let fair = match &frame {
                Some(Frame::Stream(frame)) => self.turns[side].served(frame, &lines),
                _ => Ok(()),
            };
            if promised != frame.is_some() && !end.lost {
                self.note(Err(format!("has_frame said {promised}, next_frame gave {frame:?}")));
            }
            self.note(fair.map_err(|what| format!("end {side}: {what}")));
            let Some(frame) = frame else { break };
            if !self.ends[side].lost && !self.ends[1 - side].lost {
                let frame = if self.codec { self.through_bytes(frame) } else { frame };
                self.wires[side].push_back(frame);
            }
            self.hear();
        }
    }

    fn through_bytes(&mut self, frame: Frame) -> Frame {
        let mut bytes = BytesMut::new();
        codec::encode(frame, &mut bytes);
        match codec::decode(bytes.freeze()) {
            Ok(frame) => frame,
            Err(error) => {
                self.note(Err(error.to_string()));
                Frame::Unknown
            }
        }
    }

    pub(crate) fn deliver(&mut self, side: usize, frames: usize) {
        for _ in 0..frames {
            if self.ends[1 - side].lost {
                self.wires[side].clear();
            }
            let Some(frame) = self.wires[side].pop_front() else { break };
            let outcome = self.ends[1 - side].mux.receive(frame.clone(), || self.now);
            self.note(outcome.map_err(|fatal| format!("{fatal} by {frame:?}")));
            if self.ends[1 - side].mux.violations() > 0 {
                self.note(Err(format!("taken for a violation: {frame:?}")));
            }
            self.hear();
        }
    }

    fn tick(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        for side in 0..2 {
            if !self.ends[side].lost && self.ends[side].mux.expire(self.now).is_err() {
                self.lose(side);
            }
        }
    }

    pub(crate) fn lose(&mut self, side: usize) {
        if !std::mem::replace(&mut self.ends[side].lost, true) {
            self.ends[side].mux.lose(Reason::ClientLost);
        }
        self.wires[1 - side].clear();
        self.hear();
    }

    /// Passes events on, as a driver does.
    pub(crate) fn hear(&mut self) {
        for side in 0..2 {
            while let Some(event) = self.ends[side].mux.next_event() {
                match event {
                    Event::Accepted(no) => self.accepted(side, no),
                    Event::Readable(no) => self.app(side, no, |app| app.waiting = false),
                    Event::Writable(no) => self.app(side, no, |app| app.blocked = false),
                    _ => {}
                }
            }
        }
    }

    fn app(&mut self, side: usize, no: StreamNo, act: impl Fn(&mut App)) {
        self.ends[side].apps.iter_mut().filter(|app| app.no == no).for_each(act);
    }

    fn accepted(&mut self, side: usize, no: StreamNo) {
        let Some((protocol, _)) = self.ends[side].mux.accept(no) else {
            return self.note(Err(format!("accepted {no} twice")));
        };
        let Some(request) = self.ledger.get_mut(&no) else {
            return self.note(Err(format!("accepted {no}, which nobody opened")));
        };
        if std::mem::replace(&mut request.accepted, true) || request.retry_safe {
            self.note(Err(format!("{no} is accepted after it was called safe to retry")));
        }
        self.ends[side].apps.push(App::new(no, false, protocol));
    }
}
