//! What the directed tests share: a mux that has shaken hands with an imagined peer, and
//! frames of that peer.
#![allow(dead_code)] // every test program uses its own part of this

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, uri::Scheme};
use strait_mux::{Budget, Event, Fatal, Mux, Settings, Taken};
use strait_wire::{
    Data, First, Frame, Hello, Opening, Pieces, Protocol, Reason, RequestHead, RequestId, Reset,
    ResponseHead, Side, StreamFrame, StreamNo,
};

/// The mux under test, a clock, and its budget.
pub(crate) struct Node {
    pub(crate) mux: Mux,
    pub(crate) now: Instant,
    pub(crate) budget: Budget,
}

/// How many cases to try: `usual`, unless `PROPTEST_CASES` says.
pub(crate) fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// A Hello that allows as much as ours by default.
pub(crate) fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        initial_credit: 64 * 1024,
        max_piece: 64 * 1024,
        max_requests: 10_000,
        ..Hello::default()
    }
}

pub(crate) fn opening() -> Opening {
    Opening {
        id: Some(RequestId::new()),
        client_id: String::new(),
        trace: Arc::default(),
        deadline: None,
        hops: 0,
        urgency: 3,
        service: "web".into(),
        answer_credit: 64 * 1024,
        awaits_continue: false,
        head: Arc::new(RequestHead {
            method: Method::POST,
            scheme: Scheme::HTTP,
            authority: Bytes::from_static(b"example.org"),
            path: Bytes::from_static(b"/"),
            headers: HeaderMap::new(),
        }),
    }
}

pub(crate) fn ok() -> ResponseHead {
    ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() }
}

pub(crate) fn plain(size: usize) -> Data {
    Data::plain(vec![b'x'; size].into())
}

/// The opening of a request whose body waits to be asked for.
pub(crate) fn waiting() -> Opening {
    Opening { awaits_continue: true, ..opening() }
}

/// A frame of request `no`: a chunk without anything, to be filled in.
pub(crate) fn chunk(no: u64, sequence: u32, is_request: bool) -> StreamFrame {
    StreamFrame {
        no: StreamNo(no),
        sequence,
        protocol: Protocol::Http,
        is_request,
        first: None,
        data: Pieces::default(),
        trailers: None,
        end: false,
    }
}

/// The first frame of request `no`.
pub(crate) fn open(no: u64, end: bool) -> StreamFrame {
    let first = Some(First::Request(Box::new(opening())));
    StreamFrame { first, end, ..chunk(no, 0, true) }
}

/// The first frame of the answer to `no`.
pub(crate) fn answer(no: u64, end: bool) -> StreamFrame {
    let first = Some(First::Response(Box::new(ok())));
    StreamFrame { first, end, ..chunk(no, 0, false) }
}

impl Node {
    /// A dialler that knows nothing of its peer yet.
    pub(crate) fn silent(settings: Settings, limit: usize) -> Node {
        Node::on(Side::Dialer, settings, limit)
    }

    pub(crate) fn on(side: Side, settings: Settings, limit: usize) -> Node {
        let now = Instant::now();
        let budget = Budget::new(limit);
        Node { mux: Mux::new(side, settings, budget.clone(), hello(), now), now, budget }
    }

    /// A dialler (its requests are odd) whose peer has said Hello.
    pub(crate) fn with(settings: Settings, limit: usize) -> Node {
        Node::silent(settings, limit).greeted()
    }

    pub(crate) fn new() -> Node {
        Node::with(Settings::default(), 64 << 20)
    }

    pub(crate) fn greeted(mut self) -> Node {
        self.give(Frame::Hello(Box::new(hello())));
        assert!(matches!(self.mux.next_event(), Some(Event::Ready(_))));
        assert!(matches!(self.pull(), Some(Frame::Hello(_))), "Hello goes first");
        self
    }

    /// A frame of the peer arrives and is no reason to end the session.
    pub(crate) fn give(&mut self, frame: Frame) {
        self.try_give(frame).expect("the session goes on");
        self.mux.check().expect("consistent");
    }

    pub(crate) fn try_give(&mut self, frame: Frame) -> Result<(), Fatal> {
        self.mux.receive(frame, || self.now)
    }

    pub(crate) fn pull(&mut self) -> Option<Frame> {
        let promised = self.mux.has_frame();
        let frame = self.mux.next_frame(self.now);
        assert_eq!(promised, frame.is_some(), "has_frame and next_frame agree");
        frame
    }

    pub(crate) fn pull_all(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.pull()).collect()
    }

    /// The frames that go out next, without those of the tunnel itself.
    pub(crate) fn pull_chunks(&mut self) -> Vec<StreamFrame> {
        let chunk = |frame| if let Frame::Stream(chunk) = frame { Some(chunk) } else { None };
        self.pull_all().into_iter().filter_map(chunk).collect()
    }

    /// The resets that go out next.
    pub(crate) fn pull_resets(&mut self) -> Vec<Reset> {
        let reset = |frame| if let Frame::Reset(reset) = frame { Some(reset) } else { None };
        self.pull_all().into_iter().filter_map(reset).collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.mux.next_event()).collect()
    }

    pub(crate) fn writable(&mut self, no: StreamNo) -> bool {
        self.events().iter().any(|event| matches!(event, Event::Writable(n) if *n == no))
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Opens a request of this side and sends its head.
    pub(crate) fn opened(&mut self, end: bool) -> StreamNo {
        let no = self.mux.open(opening(), Protocol::Http, end).expect("may open");
        self.pull_all();
        no
    }

    pub(crate) fn take(&mut self, no: StreamNo) -> Taken {
        self.mux.take(no, || self.now)
    }

    pub(crate) fn reason(&mut self, no: StreamNo) -> Reason {
        match self.take(no) {
            Taken::Gone(gone) => gone.reason,
            other => panic!("not gone: {other:?}"),
        }
    }

    pub(crate) fn drop_handles(&mut self, no: StreamNo) {
        self.mux.drop_reader(no);
        self.mux.drop_writer(no);
    }

    /// Nothing is left of any request.
    pub(crate) fn is_empty(&mut self) {
        self.mux.check().expect("consistent");
        assert_eq!((self.mux.pending(), self.budget.used()), (0, 0), "{:?}", self.mux.stats());
    }
}

/// So many fields, each with a value of `size` bytes.
pub(crate) fn fields(count: usize, size: usize) -> HeaderMap {
    let mut map = HeaderMap::new();
    for at in 0..count {
        let name = HeaderName::from_bytes(format!("x-{at}").as_bytes()).expect("a name");
        let value = HeaderValue::from_bytes(&vec![b'v'; size]).expect("a value");
        map.append(name, value);
    }
    map
}

/// The head of an answer with these fields.
pub(crate) fn with_head(no: StreamNo, headers: HeaderMap) -> StreamFrame {
    let mut frame = answer(no.0, false);
    if let Some(First::Response(head)) = &mut frame.first {
        head.headers = headers;
    }
    frame
}
