//! Two sessions joined by a link of real bytes: exchanges in both directions.
#![allow(clippy::panic, reason = "helpers of tests fail the test")]

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, uri::Scheme};
use strait_engine::*;
use strait_wire::{Frame, Hello, Side, codec};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

struct Wire(mpsc::Receiver<Bytes>);

impl Incoming for Wire {
    async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        match self.0.recv().await {
            Some(bytes) => codec::decode(bytes)
                .map(Some)
                .map_err(|e| LinkError::Unreadable(Refusal::Malformed(e.to_string()))),
            None => Ok(None),
        }
    }
}

/// Pulls the frames of `session` onto a wire that holds two at most.
fn wire(session: &Session) -> Wire {
    let (sender, receiver) = mpsc::channel(2);
    let session = session.clone();
    tokio::spawn(async move {
        while let Some(frame) = poll_fn(|cx| session.poll_frame(cx)).await {
            let mut bytes = BytesMut::new();
            codec::encode(frame, &mut bytes);
            if sender.send(bytes.freeze()).await.is_err() {
                break;
            }
        }
    });
    Wire(receiver)
}

struct World {
    client: Session,
    server: Session,
    cut: Vec<tokio::task::JoinHandle<Ending>>,
}

/// A client and a server, both of which answer with `upstream`.
async fn world(upstream: Arc<dyn Upstream>) -> World {
    let hello = || Hello { role: "test".into(), ..Hello::default() };
    let new = |side| {
        let budget = Budget::new(64 << 20);
        Session::new("peer".into(), side, Settings::default(), budget, hello(), Turns::start())
    };
    let (client, server) = (new(Side::Dialer), new(Side::Listener));
    let (up, down) = (wire(&client), wire(&server));
    let mut cut = Vec::new();
    for (session, incoming) in [(client.clone(), down), (server.clone(), up)] {
        tokio::spawn(serve(session.clone(), upstream.clone(), TaskTracker::new()));
        cut.push(tokio::spawn(async move { drive(&session, incoming).await }));
    }
    for session in [&client, &server] {
        assert!(matches!(session.news().await, Some(News::Ready(_))));
    }
    World { client, server, cut }
}

impl World {
    async fn settled(&self) {
        for _ in 0..200 {
            let stats = [self.client.stats(), self.server.stats()];
            if stats.iter().all(|s| s.opened + s.accepted + s.budget_used + s.buffered == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not settled: {:?} {:?}", self.client.stats(), self.server.stats());
    }
}

/// A body of `left` pieces of `size` bytes, each filled with its number.
struct Pieces {
    left: usize,
    size: usize,
}

impl Body for Pieces {
    fn poll_part(&mut self, _: &mut TaskContext<'_>) -> Poll<Option<Result<Part, Fault>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Part::Data(Data::plain(vec![self.left as u8; self.size].into())))))
    }
}

/// Never ends and never has anything.
struct Silence(Arc<AtomicUsize>);

impl Body for Silence {
    fn poll_part(&mut self, _: &mut TaskContext<'_>) -> Poll<Option<Result<Part, Fault>>> {
        Poll::Pending
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn request(path: &str, body: BoxBody) -> Exchange {
    let head = RequestHead {
        method: Method::POST,
        scheme: Scheme::HTTP,
        authority: Bytes::from_static(b"example.org"),
        path: Bytes::copy_from_slice(path.as_bytes()),
        headers: HeaderMap::new(),
    };
    let context = Context::new(Protocol::Http, Origin::Entry("test".into()), None);
    Exchange { head: Arc::new(head), context, body }
}

fn ok(body: BoxBody) -> Result<Answer, Failure> {
    Ok(Answer { head: ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() }, body })
}

/// `/echo` returns the request's body; `/silence` never ends; anything else is refused.
#[derive(Default)]
struct Sample {
    dropped: Arc<AtomicUsize>,
}

impl Upstream for Sample {
    fn carry(&self, exchange: Exchange) -> Carried<'_> {
        Box::pin(async move {
            match exchange.head.path_only() {
                "/echo" => ok(exchange.body),
                "/silence" => ok(Box::new(Silence(self.dropped.clone()))),
                "/never" => {
                    let _guard = Silence(self.dropped.clone());
                    std::future::pending().await
                }
                _ => Err(Fault::new(Reason::NoRoute).into()),
            }
        })
    }
}

async fn read(answer: Answer) -> Result<Vec<u8>, Fault> {
    collect_small(answer.body, 1 << 30).await
}

fn carried(outcome: Result<Answer, Failure>) -> Answer {
    outcome.unwrap_or_else(|failure| panic!("{}", failure.fault))
}

#[tokio::test]
async fn echoes_cross_in_both_directions_and_leave_nothing_behind() {
    let world = world(Arc::new(Sample::default())).await;
    let mut tasks = Vec::new();
    for i in 0..50 {
        for session in [&world.client, &world.server] {
            let session = session.clone();
            tasks.push(tokio::spawn(async move {
                let body = Pieces { left: 3 + i % 5, size: 100_000 };
                let bytes =
                    read(carried(session.carry(request("/echo", Box::new(body))).await)).await;
                let expected: Vec<u8> =
                    (0..3 + i % 5).rev().flat_map(|n| vec![n as u8; 100_000]).collect();
                assert!(bytes.expect("whole") == expected);
            }));
        }
    }
    for task in tasks {
        timeout(Duration::from_secs(20), task).await.expect("in time").expect("right");
    }
    world.settled().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_stops_nobody() {
    let world = world(Arc::new(Sample::default())).await;
    let endless = || Box::new(Pieces { left: 100_000, size: 50_000 });
    let stalled = carried(world.client.carry(request("/echo", endless())).await);
    for _ in 0..100 {
        let answer =
            world.client.carry(request("/echo", Box::new(Pieces { left: 1, size: 10 }))).await;
        let bytes =
            timeout(Duration::from_secs(5), read(carried(answer))).await.expect("not blocked");
        assert_eq!(bytes.expect("whole").len(), 10);
    }
    let held = world.client.stats().buffered + world.server.stats().buffered;
    assert!(held < 2 << 20, "{held} bytes are held for one stalled exchange");
    drop(stalled);
    world.settled().await;
}

#[tokio::test]
async fn dropping_the_answer_or_the_future_cancels_on_the_far_side() {
    let sample = Arc::new(Sample::default());
    let world = world(sample.clone()).await;
    let answer = carried(world.server.carry(request("/silence", Box::new(EmptyBody))).await);
    drop(answer);
    let never = world.server.carry(request("/never", Box::new(EmptyBody)));
    assert!(timeout(Duration::from_millis(50), never).await.is_err());
    world.settled().await;
    assert_eq!(sample.dropped.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_with_its_reason() {
    let world = world(Arc::new(Sample::default())).await;
    let failure = world.client.carry(request("/nowhere", Box::new(EmptyBody))).await.err();
    assert_eq!(failure.map(|f| f.fault.reason), Some(Reason::NoRoute));
    world.settled().await;
}

#[tokio::test]
async fn a_lost_link_ends_every_exchange_at_once() {
    let world = world(Arc::new(Sample::default())).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(carried(world.client.carry(request("/silence", Box::new(EmptyBody))).await));
    }
    let waiting = world.client.clone();
    let waiting =
        tokio::spawn(
            async move { waiting.carry(request("/never", Box::new(EmptyBody))).await.err() },
        );
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.cut.iter().for_each(|driver| driver.abort());
    world.client.lose(Reason::ClientLost);
    world.server.lose(Reason::ClientLost);
    for answer in answers {
        let fault = timeout(Duration::from_secs(1), read(answer)).await.expect("at once").err();
        assert_eq!(fault.map(|f| f.reason), Some(Reason::ClientLost));
    }
    let failure =
        timeout(Duration::from_secs(1), waiting).await.expect("at once").expect("no panic");
    assert_eq!(failure.map(|f| f.fault.reason), Some(Reason::ClientLost));
    world.settled().await;
    let late = world.client.carry(request("/echo", Box::new(EmptyBody))).await.err();
    assert!(
        late.is_some_and(|f| f.untouched.is_some()),
        "what was not sent may be tried elsewhere"
    );
}

#[tokio::test]
async fn draining_lets_what_is_open_finish_and_opens_no_more() {
    let world = world(Arc::new(Sample::default())).await;
    let open = carried(world.client.carry(request("/silence", Box::new(EmptyBody))).await);
    let draining = world.server.clone();
    let drained = tokio::spawn(async move { draining.drain().await });
    assert!(matches!(world.client.news().await, Some(News::Leaving(_))));
    let refused = world.client.carry(request("/echo", Box::new(EmptyBody))).await.err();
    assert_eq!(refused.map(|f| f.fault.reason), Some(Reason::Draining));
    assert!(!drained.is_finished());
    drop(open);
    timeout(Duration::from_secs(5), drained).await.expect("drained").expect("no panic");
    for driver in world.cut {
        let ending =
            timeout(Duration::from_secs(5), driver).await.expect("ended").expect("no panic");
        assert!(matches!(ending, Ending::Goodbye(_)), "{ending:?}");
    }
}
