//! The handles of one session under every order of steps of the tasks that hold them: nobody
//! sleeps through what he waits for. A lost wake-up is a deadlock here, which loom reports.
//! Run by `tests/interleavings.sh`.
#![allow(clippy::panic, clippy::unwrap_used)] // how a test fails

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use loom::future::block_on;
use loom::thread;
use strait_wire::{
    Data, First, Frame, Part, Pieces, Protocol, Reason, ResponseHead, StreamFrame, StreamNo,
};

use crate::doubles::{self, opening};
use crate::queue::Place;
use crate::stream::{StreamReader, StreamWriter};
use crate::{Body, Session, Share, Turns};

/// Tries `body` in every order of steps with up to three switches that no thread asked for.
fn every_order(body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(body);
}

/// A session whose peer has said Hello, and which has said its own.
fn session() -> Session {
    let session = doubles::session("peer");
    assert!(matches!(block_on(next_frame(&session)), Some(Frame::Hello(_))));
    session
}

fn next_frame(session: &Session) -> impl Future<Output = Option<Frame>> {
    poll_fn(|cx| session.poll_frame(cx))
}

/// Opens a request and sends its head.
fn opened(session: &Session, end: bool) -> (StreamNo, StreamReader, StreamWriter) {
    let no = session.with(|core| core.mux.open(opening(), Protocol::Http, end)).unwrap();
    assert!(matches!(block_on(next_frame(session)), Some(Frame::Stream(_))));
    let reader = StreamReader::new(session.clone(), no);
    (no, reader, StreamWriter::new(session.clone(), no))
}

fn frame(no: StreamNo, sequence: u32) -> StreamFrame {
    StreamFrame {
        no,
        sequence,
        protocol: Protocol::Http,
        is_request: false,
        first: None,
        data: Pieces::default(),
        trailers: None,
        end: false,
    }
}

fn answer(no: StreamNo) -> Frame {
    let head = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
    let first = Some(First::Response(Box::new(head)));
    Frame::Stream(StreamFrame { first, ..frame(no, 0) })
}

#[test]
fn a_link_that_waits_is_woken_by_whoever_opens() {
    every_order(|| {
        let session = session();
        let opener = session.clone();
        let other = thread::spawn(move || {
            opener.with(|core| core.mux.open(opening(), Protocol::Http, true)).unwrap();
        });
        assert!(matches!(block_on(next_frame(&session)), Some(Frame::Stream(_))));
        other.join().unwrap();
    });
}

#[test]
fn a_link_that_waits_is_woken_by_the_end_of_the_session() {
    for lost in [true, false] {
        every_order(move || {
            let session = session();
            let closer = session.clone();
            let other = thread::spawn(move || {
                if lost { closer.lose(Reason::ClientLost) } else { closer.close(Reason::None, "") }
            });
            while block_on(next_frame(&session)).is_some() {}
            other.join().unwrap();
        });
    }
}

#[test]
fn a_reader_is_woken_by_what_comes_up_to_the_end() {
    every_order(|| {
        let session = session();
        let (no, mut reader, writer) = opened(&session, true);
        drop(writer);
        let receiver = session.clone();
        let other = thread::spawn(move || {
            receiver.receive(answer(no)).unwrap();
            let data = Data::plain(Bytes::from_static(b"body")).into();
            let last = StreamFrame { data, end: true, ..frame(no, 1) };
            receiver.receive(Frame::Stream(last)).unwrap();
        });
        block_on(poll_fn(|cx| reader.poll_head(cx))).unwrap();
        let part = block_on(poll_fn(|cx| reader.poll_part(cx)));
        assert!(matches!(part, Some(Ok(Part::Data(_)))));
        assert!(block_on(poll_fn(|cx| reader.poll_part(cx))).is_none());
        other.join().unwrap();
        drop(reader);
        assert_eq!((session.pending(), session.stats().budget_used), (0, 0));
    });
}

#[test]
fn a_writer_without_credit_is_woken_when_some_comes() {
    every_order(|| {
        let session = session();
        let (no, reader, mut writer) = opened(&session, false);
        // More than the credit: one piece waits, and there is no room for another.
        writer.push(Data::plain(vec![0; 1000].into()), false).unwrap();
        let link = session.clone();
        let other = thread::spawn(move || {
            link.receive(Frame::Credit(no, 1 << 16)).unwrap();
            while !matches!(block_on(next_frame(&link)), Some(Frame::Stream(f)) if f.end) {}
        });
        block_on(poll_fn(|cx| writer.poll_room(cx))).unwrap();
        writer.finish(None).unwrap();
        other.join().unwrap();
        drop((reader, writer));
        session.lose(Reason::ClientLost);
        assert_eq!((session.pending(), session.stats().budget_used), (0, 0));
    });
}

#[test]
fn both_handles_hear_of_a_reset_and_of_a_loss() {
    for lost in [true, false] {
        every_order(move || {
            let session = session();
            let (no, mut reader, mut writer) = opened(&session, false);
            writer.push(Data::plain(vec![0; 1000].into()), false).unwrap();
            let pump = thread::spawn(move || {
                assert!(block_on(poll_fn(|cx| writer.poll_room(cx))).is_err());
            });
            let receiver = session.clone();
            let cutter = thread::spawn(move || {
                if lost {
                    receiver.lose(Reason::ClientLost);
                } else {
                    let reason = Reason::BackendReset;
                    let message = String::new();
                    let reset = strait_wire::Reset { no, reason, retry_safe: false, message };
                    receiver.receive(Frame::Reset(reset)).unwrap();
                }
            });
            assert!(block_on(poll_fn(|cx| reader.poll_head(cx))).is_err());
            pump.join().unwrap();
            cutter.join().unwrap();
            drop(reader);
            assert_eq!((session.pending(), session.stats().budget_used), (0, 0));
        });
    }
}

#[test]
fn dropping_the_handles_wakes_the_link_that_must_tell_the_peer() {
    every_order(|| {
        let session = session();
        let (_, reader, writer) = opened(&session, false);
        let other = thread::spawn(move || drop(reader));
        drop(writer);
        assert!(matches!(block_on(next_frame(&session)), Some(Frame::Reset(_))));
        other.join().unwrap();
        assert_eq!((session.pending(), session.stats().budget_used), (0, 0));
    });
}

#[test]
fn whoever_accepts_hears_of_every_request_and_of_the_end() {
    every_order(|| {
        let session = session();
        let receiver = session.clone();
        let other = thread::spawn(move || {
            let first = Some(First::Request(Box::new(opening())));
            let open = StreamFrame { first, is_request: true, end: true, ..frame(StreamNo(2), 0) };
            receiver.receive(Frame::Stream(open)).unwrap();
            receiver.lose(Reason::ClientLost);
        });
        // The loss may overtake it: then nobody is told, and nothing is left of it.
        while let Some(accepted) = block_on(session.accept()) {
            assert!(accepted.bodiless && accepted.no == StreamNo(2));
            drop(StreamWriter::new(session.clone(), accepted.no));
        }
        other.join().unwrap();
        assert_eq!((session.pending(), session.stats().budget_used), (0, 0));
    });
}

#[test]
fn a_drain_ends_with_the_last_request() {
    every_order(|| {
        let session = session();
        let (_, reader, writer) = opened(&session, false);
        let other = thread::spawn(move || drop((reader, writer)));
        block_on(session.drain());
        other.join().unwrap();
        assert_eq!(session.pending(), 0);
    });
}

#[test]
fn whoever_waits_for_a_place_gets_the_next_one() {
    for lost in [false, true] {
        every_order(move || {
            // Enough for one request.
            let session = doubles::session_of("peer", 10 * 1024);
            let no = session.with(|core| core.open(opening(), Protocol::Http, true)).unwrap();
            let held = StreamReader::new(session.clone(), no);
            let ender = session.clone();
            let other =
                thread::spawn(
                    move || {
                        if lost { ender.lose(Reason::ClientLost) } else { drop(held) }
                    },
                );
            let wait = |cx: &mut Context<'_>, place: &Place| {
                place.poll_open(cx, opening, Protocol::Http, true)
            };
            let first = Place::last(&session);
            let second = Place::last(&session);
            // One who leaves the queue before its turn, and one who comes after it.
            drop(first);
            let opened = block_on(poll_fn(|cx| wait(cx, &second)));
            assert_eq!(opened.is_err(), lost, "{opened:?}");
            other.join().unwrap();
        });
    }
}

#[test]
fn whom_the_peer_refused_goes_when_another_request_ends() {
    every_order(|| {
        let session = doubles::session_of("peer", 1 << 20);
        let open = || {
            let no = session.with(|core| core.open(opening(), Protocol::Http, true)).unwrap();
            StreamReader::new(session.clone(), no)
        };
        let (refused, held) = (open(), open());
        let place = Place::again(refused, None);
        let poll = |cx: &Context<'_>| place.poll_open(cx, opening, Protocol::Http, true);
        assert!(poll(&Context::from_waker(Waker::noop())).is_pending(), "its own end is none");
        let other = thread::spawn(move || drop(held));
        assert!(block_on(poll_fn(|cx| poll(cx))).is_ok());
        other.join().unwrap();
    });
}

#[test]
fn nobody_stands_in_line_for_ever() {
    every_order(|| {
        let (turns, usher) = Turns::line(1);
        let wait = |turns: Turns| {
            let mut share = Share::of_body();
            share.spend(usize::MAX);
            block_on(poll_fn(|cx| share.poll_turn(&turns, cx)));
        };
        let other = turns.clone();
        let one = thread::spawn(move || wait(other));
        let two = thread::spawn(move || {
            // Leaves while it waits.
            let mut share = Share::of_body();
            share.spend(usize::MAX);
            block_on(poll_fn(|cx| {
                let _ = share.poll_turn(&turns, cx);
                Poll::Ready(())
            }));
        });
        // Ends with the last handle.
        block_on(usher);
        one.join().unwrap();
        two.join().unwrap();
    });
}
