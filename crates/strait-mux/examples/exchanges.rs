//! Small exchanges between two ends, without threads or sockets: what the mux and the wire
//! format cost alone. `bench/instructions.py` counts their instructions.
//!
//!     cargo run --release -p strait-mux --example exchanges -- 1000

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Scheme};
use strait_mux::{Budget, Event, Mux, Settings, Taken};
use strait_wire::{
    Data, Hello, Opening, Protocol, RequestHead, RequestId, ResponseHead, Side, StreamNo, codec,
};

/// Bytes of an answer.
const BODY: [u8; 1024] = [b's'; 1024];

fn end(side: Side, now: Instant) -> Mux {
    Mux::new(side, Settings::default(), Budget::new(64 << 20), Hello::default(), now)
}

/// Carries all that one end has to send to the other, as bytes. Whether that went well.
fn carry(from: &mut Mux, to: &mut Mux, now: Instant) -> bool {
    while let Some(frame) = from.next_frame(now) {
        let mut bytes = BytesMut::new();
        codec::encode(frame, &mut bytes);
        let Ok(frame) = codec::decode(&mut bytes.freeze()) else { return false };
        if to.receive(frame, || now).is_err() {
            return false;
        }
    }
    true
}

fn opening(head: &Arc<RequestHead>) -> Opening {
    Opening {
        id: Some(RequestId::new()),
        client_id: String::new(),
        trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        deadline: None,
        hops: 1,
        urgency: 3,
        service: "web".into(),
        answer_credit: 0,
        awaits_continue: false,
        head: Arc::clone(head),
    }
}

/// One request and its answer, to the last event. `None` when something was not as it must be.
fn exchange(ours: &mut Mux, theirs: &mut Mux, head: &Arc<RequestHead>, now: Instant) -> Option<()> {
    let no = ours.open(opening(head), Protocol::Http, true).ok()?;
    ours.drop_writer(no);
    carry(ours, theirs, now).then_some(())?;
    let asked = accepted(theirs)?;
    theirs.accept(asked)?;
    matches!(theirs.take(asked, || now), Taken::End).then_some(())?;
    theirs.drop_reader(asked);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(BODY.len()));
    theirs.respond(asked, ResponseHead { status: StatusCode::OK, headers }).ok()?;
    theirs.push(asked, Data::plain(Bytes::from_static(&BODY))).ok()?;
    theirs.finish(asked, None).ok()?;
    theirs.drop_writer(asked);
    carry(theirs, ours, now).then_some(())?;
    while ours.next_event().is_some() {}
    matches!(ours.take(no, || now), Taken::Head(_)).then_some(())?;
    matches!(ours.take(no, || now), Taken::Data(data) if data.bytes.len() == BODY.len())
        .then_some(())?;
    matches!(ours.take(no, || now), Taken::End).then_some(())?;
    ours.drop_reader(no);
    (ours.pending() == 0 && theirs.pending() == 0).then_some(())
}

/// The request that the peer opened; the other events do not matter here.
fn accepted(mux: &mut Mux) -> Option<StreamNo> {
    let mut found = None;
    while let Some(event) = mux.next_event() {
        if let Event::Accepted(no) = event {
            found = Some(no);
        }
    }
    found
}

fn main() -> ExitCode {
    let count = std::env::args().nth(1).and_then(|count| count.parse::<u64>().ok());
    let Some(count) = count else {
        eprintln!("usage: exchanges COUNT");
        return ExitCode::from(2);
    };
    let now = Instant::now();
    let (mut ours, mut theirs) = (end(Side::Listener, now), end(Side::Dialer, now));
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
    let head = Arc::new(RequestHead {
        method: Method::GET,
        scheme: Scheme::HTTP,
        authority: Bytes::from_static(b"example.org"),
        path: Bytes::from_static(b"/small"),
        headers,
    });
    let greeted = carry(&mut ours, &mut theirs, now) && carry(&mut theirs, &mut ours, now);
    let done = (0..count).take_while(|_| exchange(&mut ours, &mut theirs, &head, now).is_some());
    if !greeted || done.count() as u64 != count {
        eprintln!("an exchange went wrong");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
