//! Two sessions joined by a link of real bytes.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, uri::Scheme};
use strait_engine::*;
use strait_wire::{Frame, Hello, Side, codec};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

pub struct Wire(mpsc::Receiver<Bytes>);

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

/// Pulls the frames of `session` onto a wire that holds two at most, as long as it is not
/// `stalled`.
pub fn wire(session: &Session, stalled: &Arc<AtomicBool>) -> Wire {
    let (sender, receiver) = mpsc::channel(2);
    let (session, stalled) = (session.clone(), stalled.clone());
    tokio::spawn(async move {
        let next = |cx: &mut TaskContext<'_>| match stalled.load(Ordering::SeqCst) {
            true => Poll::Pending,
            false => session.poll_frame(cx),
        };
        while let Some(frame) = poll_fn(next).await {
            let mut bytes = BytesMut::new();
            codec::encode(frame, &mut bytes);
            if sender.send(bytes.freeze()).await.is_err() {
                break;
            }
        }
    });
    Wire(receiver)
}

pub struct World {
    pub client: Session,
    pub server: Session,
    pub cut: Vec<tokio::task::JoinHandle<Ending>>,
    /// Nothing is given to the link any more.
    pub stalled: Arc<AtomicBool>,
}

/// A client and a server, both of which answer with `upstream`.
pub async fn world(upstream: Arc<dyn Upstream>) -> World {
    world_of(upstream, 64 << 20).await
}

/// The same, each with a memory budget of so many bytes.
pub async fn world_of(upstream: Arc<dyn Upstream>, budget: usize) -> World {
    worlds(upstream, [budget; 2]).await
}

/// The same; the client's is the first.
pub async fn worlds(upstream: Arc<dyn Upstream>, [client, server]: [usize; 2]) -> World {
    let hello = || Hello { role: "test".into(), ..Hello::default() };
    let new = |side, budget| {
        let budget = Budget::new(budget);
        Session::new(
            "peer".into(),
            side,
            Settings::default(),
            budget,
            hello(),
            Turns::start(&tokio::runtime::Handle::current()),
        )
    };
    let (client, server) = (new(Side::Dialer, client), new(Side::Listener, server));
    let stalled = Arc::<AtomicBool>::default();
    let (up, down) = (wire(&client, &stalled), wire(&server, &stalled));
    let mut cut = Vec::new();
    for (session, incoming) in [(client.clone(), down), (server.clone(), up)] {
        tokio::spawn(serve(session.clone(), upstream.clone(), TaskTracker::new()));
        cut.push(tokio::spawn(async move { drive(&session, incoming).await }));
    }
    for session in [&client, &server] {
        assert!(matches!(session.news().await, Some(News::Ready(_))));
    }
    World { client, server, cut, stalled }
}

impl World {
    pub async fn settled(&self) {
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
pub struct Pieces {
    pub left: usize,
    pub size: usize,
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
pub struct Silence(pub Arc<AtomicUsize>);

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

pub fn request(path: &str, body: BoxBody) -> Exchange {
    let head = RequestHead {
        method: Method::POST,
        scheme: Scheme::HTTP,
        authority: Bytes::from_static(b"example.org"),
        path: Bytes::copy_from_slice(path.as_bytes()),
        headers: HeaderMap::new(),
    };
    let context =
        Context::new(RequestId::new(), Protocol::Http, Origin::Entry("test".into()), None);
    Exchange { head: Arc::new(head), context, body }
}

pub fn ok(body: BoxBody) -> Result<Answer, Failure> {
    Ok(Answer { head: ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() }, body })
}

/// `/echo` returns the request's body; `/silence` never ends; anything else is refused.
#[derive(Default)]
pub struct Sample {
    pub dropped: Arc<AtomicUsize>,
}

impl Upstream for Sample {
    fn carry(&self, exchange: Exchange) -> Carried<'_> {
        Box::pin(async move {
            match exchange.head.path_only() {
                b"/echo" => ok(exchange.body),
                b"/silence" => ok(Box::new(Silence(self.dropped.clone()))),
                b"/never" => {
                    let _guard = Silence(self.dropped.clone());
                    std::future::pending().await
                }
                _ => Err(Fault::new(Reason::NoRoute).into()),
            }
        })
    }
}

pub async fn read(answer: Answer) -> Result<Vec<u8>, Fault> {
    collect_small(answer.body, 1 << 30).await
}

pub fn carried(outcome: Result<Answer, Failure>) -> Answer {
    outcome.unwrap_or_else(|failure| panic!("{}", failure.fault))
}

/// Waits for what should happen soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(5), what).await.expect("happens soon")
}
