//! The applications: what they do with their requests, and what they think of what they get.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, uri::Scheme};
use strait_mux::{Gone, Taken};
use strait_wire::{Opening, Protocol, RequestHead, RequestId, ResponseHead, StreamNo};

use super::ledger::Request;
use super::world::World;

type Outcome = Result<(), String>;

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
    /// Reads no more, and keeps its handle.
    pub(crate) stalled: bool,
    pub(crate) ended: bool,
    pub(crate) gone: Option<Gone>,
}

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

fn opening(size: usize, awaits_continue: bool) -> Opening {
    Opening {
        id: Some(RequestId::new()),
        client_id: String::new(),
        trace: Arc::default(),
        deadline: None,
        hops: 0,
        urgency: (size % 8) as u8,
        service: Arc::default(),
        answer_credit: 0,
        awaits_continue,
        head: Arc::new(head(size)),
    }
}

impl World {
    pub(crate) fn open(&mut self, side: usize, protocol: u8, body: bool, waits: bool, head: usize) {
        let protocol = Protocol::ALL[usize::from(protocol)];
        let end = &mut self.ends[side];
        let Ok(no) = end.mux.open(opening(head, waits), protocol, !body) else { return };
        let mut request = Request::new(no.0 * 2);
        request.unasked = waits && body;
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
            Ok(_) if app.ours && self.ledger.get(&app.no).is_some_and(|r| r.unasked) => {
                let no = app.no;
                self.note(Err(format!("request {no}: room before anybody asked for the body")));
            }
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
        // Heads and trailers come without credit: a small budget may have no place for them.
        let crowded = self.ends.iter().any(|end| end.mux.stats().refusals.heads > 0);
        let lost = crowded || self.ends.iter().any(|end| end.lost);
        let end = &mut self.ends[side];
        let app = &mut end.apps[at];
        if !app.reader || app.stalled {
            return false;
        }
        let taken = end.mux.take(app.no, || now);
        app.waiting = matches!(taken, Taken::Pending);
        let request = self.ledger.get_mut(&app.no).expect("known");
        request.unasked &= app.ours;
        let (more, outcome) = app.judge(taken, request, lost);
        let no = app.no;
        self.note(outcome.map_err(|what| format!("request {no} at {side}: {what}")));
        more
    }

    pub(crate) fn drop_reader(&mut self, side: usize, at: usize) {
        let end = &mut self.ends[side];
        let app = &mut end.apps[at];
        let no = app.no;
        if std::mem::take(&mut app.reader) {
            end.mux.drop_reader(no);
        }
        self.touch(no);
        self.forget(side);
    }

    pub(crate) fn drop_writer(&mut self, side: usize, at: usize) {
        let end = &mut self.ends[side];
        let app = &mut end.apps[at];
        let no = app.no;
        if std::mem::take(&mut app.writer) {
            end.mux.drop_writer(no);
        }
        self.touch(no);
        self.forget(side);
    }

    fn forget(&mut self, side: usize) {
        self.ends[side].apps.retain(|app| app.reader || app.writer);
    }
}

impl App {
    pub(crate) fn new(no: StreamNo, ours: bool, protocol: Protocol) -> App {
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
            stalled: false,
            ended: false,
            gone: None,
        }
    }

    /// The half that this end sends.
    pub(crate) fn sends(&self) -> usize {
        usize::from(!self.ours)
    }

    /// Holds what was taken against what was sent: whether there may be more, and what is
    /// wrong with it. `lost`: an end has lost its link, or had no memory for a head.
    fn judge(&mut self, taken: Taken, request: &mut Request, lost: bool) -> (bool, Outcome) {
        let half = &mut request.halves[1 - self.sends()];
        let over = self.ended || self.gone.is_some();
        match taken {
            Taken::Head(_) if half.got_head || !self.ours => (true, wrong("a second head")),
            Taken::Head(_) => {
                half.got_head = true;
                (true, Ok(()))
            }
            Taken::Data(_) | Taken::Trailers(_) if over => (true, wrong("more after the end")),
            Taken::Data(data) => (true, half.took(&data)),
            Taken::Trailers(map) => {
                let value = map.get("x-sum").and_then(|v| v.to_str().ok()?.parse().ok());
                (true, half.took_trailers(value.unwrap_or(u64::MAX)))
            }
            Taken::End if self.gone.is_some() => (false, wrong("an end after a cut")),
            Taken::End if self.ended => (false, Ok(())),
            Taken::End => {
                self.ended = true;
                (false, half.took_end())
            }
            Taken::Pending if over => (false, wrong("waiting after the end")),
            Taken::Pending => (false, Ok(())),
            Taken::Gone(_) if self.ended => (false, wrong("a cut after the end")),
            Taken::Gone(gone) => {
                self.gone = Some(gone);
                (false, self.cut(gone, request, lost))
            }
        }
    }

    /// Whether the request may be cut in this way.
    fn cut(&self, gone: Gone, request: &mut Request, lost: bool) -> Outcome {
        let promised = gone.retry_safe && self.ours && !request.excused;
        request.retry_safe |= promised;
        if promised && request.accepted {
            return wrong("called safe to retry although the peer had accepted it");
        }
        if !(request.touched || lost || gone.retry_safe) {
            return Err(format!("cut although nobody cut it: {gone:?}"));
        }
        Ok(())
    }
}

fn wrong(what: &str) -> Outcome {
    Err(what.to_owned())
}
