//! The steps of a hostile peer and of an application, and what must hold after each. What
//! generates them is elsewhere: random cases in `main.rs`, a fuzzer's bytes in `strait-fuzz`.

use strait_mux::{Event, Settings, Taken};
use strait_wire::{Frame, Protocol, Reason, Side, StreamNo};

use super::common::{Node, ok, opening, plain};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Receive(Box<Frame>),
    Open { protocol: usize, end: bool },
    Use { pick: usize, what: u8, size: usize },
    Pull(usize),
    Expire(u64),
    Leave(bool),
    Lose,
}

/// The handles of one request.
#[derive(Clone, Copy)]
struct Handles {
    no: StreamNo,
    answering: bool,
    open: bool,
    reader: bool,
    writer: bool,
}

fn use_handles(node: &mut Node, handles: &mut Handles, what: u8, size: usize) {
    let no = handles.no;
    let now = node.now;
    match what {
        0 | 1 if handles.reader => {
            if let Taken::End = node.mux.take(no, || now) {
                assert!(matches!(node.mux.take(no, || now), Taken::End), "once ended, ended");
            }
        }
        2 if handles.writer && handles.answering && !handles.open => {
            handles.open = node.mux.respond(no, ok()).is_ok();
        }
        3 | 4 if handles.writer && handles.open && node.mux.room(no).is_ok_and(|n| n > 0) => {
            node.mux.push(no, plain(size)).expect("there was room");
        }
        5 if handles.writer && handles.open && node.mux.finish(no, None).is_ok() => {
            handles.open = false;
            handles.writer = false;
            node.mux.drop_writer(no);
        }
        6 if handles.reader => {
            handles.reader = false;
            node.mux.drop_reader(no);
        }
        7 if handles.writer => {
            handles.writer = false;
            handles.open = false;
            node.mux.drop_writer(no);
        }
        _ if size.is_multiple_of(7) => node.mux.reset(no, Reason::Internal, false, "any time"),
        _ => {}
    }
}

fn hear(node: &mut Node, held: &mut Vec<Handles>) {
    for event in node.events() {
        if let Event::Accepted(no) = event {
            assert!(node.mux.accept(no).is_some(), "told once");
            let (reader, writer) = (true, true);
            held.push(Handles { no, answering: true, open: false, reader, writer });
        }
    }
}

/// Runs `steps` against one end whose memory is `limit` bytes.
pub(crate) fn run(settings: Settings, limit: usize, steps: Vec<Step>) {
    let max_requests = settings.max_requests as usize;
    let mut node = Node::on(Side::Dialer, settings, limit).greeted();
    let mut held: Vec<Handles> = Vec::new();
    for step in steps {
        let what = format!("{step:?}");
        match step {
            Step::Receive(frame) => {
                if node.try_give(*frame).is_err() {
                    node.mux.lose(Reason::Protocol);
                    hear(&mut node, &mut held);
                    break;
                }
            }
            Step::Open { protocol, end } => {
                if let Ok(no) = node.mux.open(opening(), Protocol::ALL[protocol], end) {
                    let (reader, writer) = (true, true);
                    held.push(Handles { no, answering: false, open: !end, reader, writer });
                }
            }
            Step::Use { pick, what, size } if !held.is_empty() => {
                let at = pick % held.len();
                use_handles(&mut node, &mut held[at], what, size);
            }
            Step::Use { .. } => {}
            Step::Pull(frames) => (0..frames).for_each(|_| drop(node.pull())),
            Step::Expire(millis) => {
                node.pass(std::time::Duration::from_millis(millis));
                let _ = node.mux.expire(node.now);
            }
            Step::Leave(now) if now => node.mux.goodbye(Reason::None, ""),
            Step::Leave(_) => node.mux.drain(),
            Step::Lose => {
                node.mux.lose(Reason::ClientLost);
                hear(&mut node, &mut held);
                break;
            }
        }
        hear(&mut node, &mut held);
        node.mux.check().unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        assert!(node.mux.stats().accepted <= max_requests);
    }
    for handles in &held {
        if handles.reader {
            node.mux.drop_reader(handles.no);
        }
        if handles.writer {
            node.mux.drop_writer(handles.no);
        }
    }
    // Whoever finished properly may still wait for credit that never comes; a loss ends it.
    node.mux.lose(Reason::ClientLost);
    node.is_empty();
    assert!(!node.mux.has_frame());
}
