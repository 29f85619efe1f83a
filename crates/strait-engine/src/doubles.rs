//! What tests of this crate set up alike.
#![allow(clippy::unwrap_used)] // how a test fails

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, uri::Scheme};
use strait_mux::{Budget, Settings};
use strait_wire::{Frame, Hello, Opening, RequestHead, RequestId, Side};

use crate::{Session, Turns};

pub(crate) fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        initial_credit: 64,
        max_piece: 1 << 16,
        max_requests: 100,
        ..Hello::default()
    }
}

/// A session of `peer`, which has said Hello.
pub(crate) fn session(peer: &str) -> Session {
    session_of(peer, 1 << 26)
}

/// The same with a budget of so many bytes.
pub(crate) fn session_of(peer: &str, budget: usize) -> Session {
    let (settings, budget) = (Settings::default(), Budget::new(budget));
    let session = Session::new(peer.into(), Side::Dialer, settings, budget, hello(), Turns::NONE);
    session.receive(Frame::Hello(Box::new(hello()))).unwrap();
    session
}

pub(crate) fn opening() -> Opening {
    let head = RequestHead {
        method: Method::GET,
        scheme: Scheme::HTTP,
        authority: Bytes::from_static(b"a"),
        path: Bytes::from_static(b"/"),
        headers: HeaderMap::new(),
    };
    Opening {
        id: Some(RequestId::new()),
        client_id: String::new(),
        trace: Arc::default(),
        deadline: None,
        hops: 0,
        urgency: 3,
        service: Arc::default(),
        answer_credit: 1 << 16,
        awaits_continue: false,
        head: Arc::new(head),
    }
}
