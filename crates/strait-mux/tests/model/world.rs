//! Two muxes, their applications and the wire between them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, uri::Scheme};
use strait_mux::{Budget, Event, Gone, Mux, Taken};
use strait_wire::{
    Frame, Hello, Opening, Protocol, Reason, RequestHead, RequestId, ResponseHead, Side, StreamNo,
    codec,
};

use crate::ledger::Request;
use crate::ops::{Op, Plan};

/// The handles that an application holds on one request at one end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct App {
    pub(crate) no: StreamNo,
    pub(crate) ours: bool,
    pub(crate) protocol: Protocol,
    pub(crate) reader: bool,
    pub(crate) writer: bool,
    pub(crate) responded: bool,
    pub(crate) finished: bool,
    /// Told that there is no room, and not yet that there is some.
    pub(crate) blocked: bool,
    /// Told that there is nothing to read, and not yet that there is some.
    pub(crate) waiting: bool,
    pub(crate) ended: bool,
    pub(crate) gone: Option<Gone>,
}

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
    pub(crate) broken: Option<String>,
}

const SIDES: [Side; 2] = [Side::Dialer, Side::Listener];

fn head(size: usize) -> RequestHead {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(&vec![b'h'; size]) {
        headers.insert("x-filler", value);
    }
    RequestHead {
        method: Method::POST,
        scheme: Scheme::HTTP,
        authority: Bytes::from_static(b"example.org"),
        path: Bytes::from_static(b"/a"),
        headers,
    }
}

fn opening(size: usize) -> Opening {
    Opening {
        id: Some(RequestId::new()),
        client_id: String::new(),
        trace: String::new(),
        deadline: None,
        hops: 0,
        urgency: (size % 8) as u8,
        service: String::new(),
        answer_credit: 0,
        head: Arc::new(head(size)),
    }
}

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
            Op::Open { side, protocol, body, head } => self.open(side, protocol, body, head),
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
                world.ends[side].mux.reset(app.no, Reason::BackendReset, retry_safe, "");
            }),
            Op::DropReader { side, pick } => self.each(side, pick, Self::drop_reader),
            Op::DropWriter { side, pick } => self.each(side, pick, Self::drop_writer),
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

    fn each(&mut self, side: usize, pick: usize, act: impl FnOnce(&mut World, usize, usize)) {
        let held = self.ends[side].apps.len();
        if held > 0 {
            act(self, side, pick % held);
        }
    }

    fn open(&mut self, side: usize, protocol: u8, body: bool, head: usize) {
        let protocol = Protocol::ALL[usize::from(protocol)];
        let end = &mut self.ends[side];
        let Ok(no) = end.mux.open(opening(head), protocol, !body) else { return };
        let mut request = Request::new(no.0 * 2);
        request.halves[0].finished = !body;
        self.ledger.insert(no, request);
        let app = App::new(no, true, protocol);
        end.apps.push(App { responded: true, finished: !body, writer: body, ..app });
        if !body {
            end.mux.drop_writer(no);
        }
    }

    pub(crate) fn respond(&mut self, side: usize, at: usize) {
        let app = self.ends[side].apps[at];
        if app.responded || !app.writer {
            return;
        }
        let status = if app.protocol == Protocol::WebSocket { 101 } else { 200 };
        let status = StatusCode::from_u16(status).unwrap_or_default();
        let head = ResponseHead { status, headers: HeaderMap::new() };
        if self.ends[side].mux.respond(app.no, head).is_ok() {
            self.ends[side].apps[at].responded = true;
        }
    }

    pub(crate) fn push(&mut self, side: usize, at: usize, size: usize, shape: u8) {
        let end = &mut self.ends[side];
        let app = &mut end.apps[at];
        if !app.writer || !app.responded || app.finished || app.blocked {
            return;
        }
        match end.mux.room(app.no) {
            Ok(0) => app.blocked = true,
            Ok(_) => {
                let half = &mut self.ledger.get_mut(&app.no).expect("known").halves[app.sends()];
                let data = half.piece(size, shape, app.protocol != Protocol::Http);
                if end.mux.push(app.no, data.clone()).is_ok() {
                    half.pushed(&data);
                }
            }
            Err(_) => {}
        }
    }

    pub(crate) fn end(&mut self, side: usize, at: usize, trailers: bool) {
        let end = &mut self.ends[side];
        let app = &mut end.apps[at];
        if !app.writer || !app.responded || app.finished {
            return;
        }
        let half = &mut self.ledger.get_mut(&app.no).expect("known").halves[app.sends()];
        // Trailers exist where the protocol has them.
        let has = match app.protocol {
            Protocol::Http => true,
            Protocol::Grpc => !app.ours,
            Protocol::WebSocket => false,
        };
        let value = (trailers && has).then(|| half.trailers_value());
        let map =
            value.map(|v| HeaderMap::from_iter([("x-sum".parse().expect("a name"), v.into())]));
        if end.mux.finish(app.no, map).is_ok() {
            half.finished(value);
            app.finished = true;
        }
    }

    /// Takes one part; whether there was one.
    pub(crate) fn take(&mut self, side: usize, at: usize) -> bool {
        let now = self.now;
        let end = &mut self.ends[side];
        let app = &mut end.apps[at];
        if !app.reader {
            return false;
        }
        let taken = end.mux.take(app.no, now);
        app.waiting = matches!(taken, Taken::Pending);
        let request = self.ledger.get_mut(&app.no).expect("known");
        let half = &mut request.halves[1 - app.sends()];
        let over = app.ended || app.gone.is_some();
        let (more, outcome) = match taken {
            Taken::Head(_) if half.got_head || !app.ours => (true, Err("a second head".into())),
            Taken::Head(_) => {
                half.got_head = true;
                (true, Ok(()))
            }
            Taken::Data(_) | Taken::Trailers(_) if over => (true, Err("more after the end".into())),
            Taken::Data(data) => (true, half.took(&data)),
            Taken::Trailers(map) => {
                let value = map.get("x-sum").and_then(|v| v.to_str().ok()?.parse().ok());
                (true, half.took_trailers(value.unwrap_or(u64::MAX)))
            }
            Taken::End if app.gone.is_some() => (false, Err("an end after a cut".into())),
            Taken::End if app.ended => (false, Ok(())),
            Taken::End => {
                app.ended = true;
                (false, half.took_end())
            }
            Taken::Pending if over => (false, Err("waiting after the end".into())),
            Taken::Pending => (false, Ok(())),
            Taken::Gone(_) if app.ended => (false, Err("a cut after the end".into())),
            Taken::Gone(gone) => {
                app.gone = Some(gone);
                let unsafe_ = gone.retry_safe && app.ours && request.accepted && !request.excused;
                request.retry_safe |= gone.retry_safe && app.ours && !request.excused;
                let wrong = "called safe to retry although the peer had accepted it";
                (false, if unsafe_ { Err(wrong.into()) } else { Ok(()) })
            }
        };
        let no = app.no;
        self.note(outcome.map_err(|what| format!("request {no} at {side}: {what}")));
        more
    }

    pub(crate) fn drop_reader(&mut self, side: usize, at: usize) {
        let end = &mut self.ends[side];
        let app = &mut end.apps[at];
        if std::mem::take(&mut app.reader) {
            end.mux.drop_reader(app.no);
        }
        self.forget(side);
    }

    pub(crate) fn drop_writer(&mut self, side: usize, at: usize) {
        let end = &mut self.ends[side];
        let app = &mut end.apps[at];
        if std::mem::take(&mut app.writer) {
            end.mux.drop_writer(app.no);
        }
        self.forget(side);
    }

    fn forget(&mut self, side: usize) {
        self.ends[side].apps.retain(|app| app.reader || app.writer);
    }

    pub(crate) fn pull(&mut self, side: usize, frames: usize) {
        for _ in 0..frames {
            let end = &mut self.ends[side];
            let promised = end.mux.has_frame();
            let frame = end.mux.next_frame(self.now);
            if promised != frame.is_some() && !end.lost {
                self.note(Err(format!("has_frame said {promised}, next_frame gave {frame:?}")));
            }
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
            let outcome = self.ends[1 - side].mux.receive(frame.clone(), self.now);
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

impl App {
    fn new(no: StreamNo, ours: bool, protocol: Protocol) -> App {
        App {
            no,
            ours,
            protocol,
            reader: true,
            writer: true,
            responded: false,
            finished: false,
            blocked: false,
            waiting: false,
            ended: false,
            gone: None,
        }
    }

    /// The half that this end sends.
    pub(crate) fn sends(&self) -> usize {
        usize::from(!self.ours)
    }
}
