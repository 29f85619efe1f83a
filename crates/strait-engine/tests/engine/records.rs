//! What is recorded of each exchange, whatever its end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use strait_engine::*;

use crate::world::{Sample, request, soon};

/// Keeps what is recorded: status and reason.
#[derive(Default)]
pub struct Kept(Mutex<Vec<(Option<u16>, Option<Reason>)>>);

impl Kept {
    fn last(&self) -> (Option<u16>, Option<Reason>) {
        let mut all = self.0.lock().unwrap();
        assert_eq!(all.len(), 1, "one record for each exchange: {all:?}");
        all.remove(0)
    }
}

impl Recorder for Kept {
    fn started(&self, _: Protocol) {}

    fn finished(&self, record: &Record) {
        let reason = record.fault.as_ref().map(|fault| fault.reason);
        self.0.lock().unwrap().push((record.status, reason));
    }
}

/// A dispatch to [`Sample`], for at most `most` exchanges at once.
fn dispatch(most: usize) -> (Arc<Dispatch>, Arc<Kept>) {
    let service = strait_wire::Service {
        name: "sample".into(),
        protocols: Vec::new(),
        hosts: Vec::new(),
        path_prefix: String::new(),
    };
    let local = Local { service, upstream: Arc::new(Sample::default()), at_entries: true };
    let directory = Arc::new(Directory::new(vec![local], Patience::default()));
    let kept = Arc::new(Kept::default());
    (Arc::new(Dispatch::new(directory, kept.clone(), most)), kept)
}

async fn fails(dispatch: &Dispatch, exchange: Exchange) -> Reason {
    soon(dispatch.carry(exchange)).await.err().expect("it fails").fault.reason
}

#[tokio::test]
async fn a_caller_who_leaves_before_the_head_is_a_499() {
    let (dispatch, kept) = dispatch(10);
    let never = dispatch.carry(request("/never", Box::new(EmptyBody)));
    assert!(tokio::time::timeout(Duration::from_millis(20), never).await.is_err());
    assert_eq!(kept.last(), (Some(499), Some(Reason::Cancelled)));
    // After the head its status stands.
    let answer = soon(dispatch.carry(request("/silence", Box::new(EmptyBody)))).await;
    drop(answer.ok().expect("it answers"));
    assert_eq!(kept.last(), (Some(200), Some(Reason::Cancelled)));
}

#[tokio::test]
async fn an_answer_that_is_given_up_tells_why() {
    let (dispatch, kept) = dispatch(10);
    let answer = soon(dispatch.carry(request("/silence", Box::new(EmptyBody)))).await;
    let mut body = answer.ok().expect("it answers").body;
    body.give_up(&Fault::new(Reason::BackendInvalid));
    drop(body);
    assert_eq!(kept.last(), (Some(200), Some(Reason::BackendInvalid)));
}

#[tokio::test]
async fn what_an_entry_refuses_is_recorded_with_its_own_status() {
    let (dispatch, kept) = dispatch(10);
    let exchange = request("/", Box::new(EmptyBody));
    let fault = Fault::new(Reason::BadRequest);
    dispatch.refused(&exchange, StatusCode::METHOD_NOT_ALLOWED, &fault);
    assert_eq!(kept.last(), (Some(405), Some(Reason::BadRequest)));
}

#[tokio::test]
async fn more_exchanges_than_allowed_are_refused_and_there_is_room_again() {
    let (dispatch, kept) = dispatch(1);
    let open = soon(dispatch.carry(request("/silence", Box::new(EmptyBody)))).await;
    let refused = fails(&dispatch, request("/silence", Box::new(EmptyBody))).await;
    assert_eq!(refused, Reason::Overloaded);
    assert_eq!(kept.last(), (Some(503), Some(Reason::Overloaded)));
    drop(open);
    kept.last();
    assert!(soon(dispatch.carry(request("/silence", Box::new(EmptyBody)))).await.is_ok());
}

#[tokio::test]
async fn a_visitor_has_his_share_until_his_exchanges_end() {
    let (dispatch, kept) = dispatch(10);
    dispatch.set_visitor_limit(Some(1));
    let of = |visitor: &str, path| {
        let mut exchange = request(path, Box::new(EmptyBody));
        exchange.context.caller.address = Some(visitor.parse().unwrap());
        exchange
    };
    let open = soon(dispatch.carry(of("192.0.2.1:1", "/silence"))).await;
    assert_eq!(fails(&dispatch, of("192.0.2.1:2", "/silence")).await, Reason::ClientLimit);
    assert_eq!(kept.last(), (Some(429), Some(Reason::ClientLimit)));
    let other = soon(dispatch.carry(of("192.0.2.2:1", "/silence"))).await;
    assert!(other.is_ok());
    drop(other);
    kept.last();
    // What comes from a peer is nobody's share here.
    for _ in 0..2 {
        let peers = soon(dispatch.carry(request("/silence", Box::new(EmptyBody)))).await;
        assert!(peers.is_ok());
        drop(peers);
        kept.last();
    }
    drop(open);
    kept.last();
    // Nor is what ends at once, what fails, and what its visitor leaves.
    for path in ["/silence", "/never", "/silence"] {
        let short = Duration::from_millis(20);
        drop(tokio::time::timeout(short, dispatch.carry(of("192.0.2.1:3", path))).await);
        let (status, reason) = kept.last();
        assert_eq!(reason, Some(Reason::Cancelled), "{path}: {status:?}");
    }
}

#[tokio::test]
async fn a_request_that_passed_too_many_tunnels_is_a_loop() {
    let (dispatch, kept) = dispatch(10);
    let with = |hops| {
        let mut exchange = request("/silence", Box::new(EmptyBody));
        exchange.context.hops = hops;
        exchange
    };
    assert!(soon(dispatch.carry(with(MAX_HOPS))).await.is_ok());
    kept.last();
    assert_eq!(fails(&dispatch, with(MAX_HOPS + 1)).await, Reason::Loop);
    assert_eq!(kept.last(), (Some(508), Some(Reason::Loop)));
}
