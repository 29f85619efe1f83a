//! Frames that a hostile peer might send, chosen by bytes.

use bytes::Bytes;
use http::HeaderMap;
use strait_wire::{
    Data, First, Frame, GoAway, MessageStart, Opening, Protocol, Reason, Reset, Settings,
    StreamFrame, StreamNo, codec,
};

use crate::input::Input;
use crate::mux::common::{ok, opening, plain};

pub(crate) fn frame(input: &mut Input<'_>) -> Frame {
    match input.byte() % 32 {
        0..16 => Frame::Stream(stream(input)),
        16..19 => {
            let no = number(input);
            let bytes = if input.flag() { input.word() } else { input.size() as u32 };
            Frame::Credit(no, bytes)
        }
        19..22 => Frame::Reset(Reset {
            no: number(input),
            reason: reason(input),
            retry_safe: input.flag(),
            message: String::new(),
        }),
        22 => Frame::Ping(u64::from(input.word())),
        23 => Frame::Pong(u64::from(input.byte())),
        24 => Frame::GoAway(GoAway {
            last: input.flag().then(|| number(input)),
            reason: reason(input),
            message: String::new(),
        }),
        25 => {
            Frame::Settings(Settings { initial_credit: input.word(), max_requests: input.word() })
        }
        26 => Frame::Malformed(number(input), "damaged"),
        27 => Frame::Unknown,
        // Whatever the bytes themselves say.
        _ => {
            let length = input.size();
            codec::decode(Bytes::copy_from_slice(input.take(length))).unwrap_or(Frame::Unknown)
        }
    }
}

fn number(input: &mut Input<'_>) -> StreamNo {
    StreamNo(input.below(9) as u64)
}

fn reason(input: &mut Input<'_>) -> Reason {
    input.pick(Reason::ALL)
}

fn stream(input: &mut Input<'_>) -> StreamFrame {
    let no = number(input);
    let shape = input.byte();
    let first = match shape & 3 {
        1 => {
            let answer_credit = if input.flag() { input.word() } else { input.size() as u32 };
            let id = opening().id.filter(|_| shape & 4 == 0);
            let urgency = input.byte();
            let awaits_continue = shape & 128 != 0;
            let opening = Opening { id, urgency, answer_credit, awaits_continue, ..opening() };
            Some(First::Request(Box::new(opening)))
        }
        2 => Some(First::Response(Box::new(ok()))),
        _ => None,
    };
    let data = (0..input.below(3)).map(|_| piece(input)).collect();
    StreamFrame {
        no,
        sequence: if first.is_some() { 0 } else { u32::from(input.byte() % 8) },
        protocol: if shape & 8 == 0 { Protocol::Http } else { Protocol::Grpc },
        is_request: (shape & 16 != 0) ^ no.0.is_multiple_of(2),
        first,
        data,
        trailers: (shape & 32 != 0).then(|| Box::new(HeaderMap::new())),
        end: shape & 64 != 0,
    }
}

fn piece(input: &mut Input<'_>) -> Data {
    let marks = input.byte();
    let start = (marks & 1 != 0).then_some(MessageStart { tag: 1, length: 5 });
    Data { start, ends_message: marks & 2 != 0, ..plain(input.size()) }
}
