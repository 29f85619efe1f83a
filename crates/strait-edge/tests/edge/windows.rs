//! What answers by HTTP/2 that nobody takes hold of memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use http_body_util::BodyExt;
use strait_edge::{Backend, Settings, tls::Trust};
use strait_engine::{Answer, Budget, Carried, Exchange, Upstream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::world::{Door, Task, Visitor, entry, full, open, raw_service, soon, task, until};

/// Bytes of a budget, and of what is sent on each of the many streams.
const BUDGET: usize = 4 << 20;
const BODY: usize = 512 << 10;
/// So many that their full windows would be ten times the budget.
const MANY: usize = 160;
/// The least that each has, and a frame.
const LEAST: usize = 4 << 10;

/// Keeps the answers of a service unread, but for the one to `/small`.
struct Holds(Backend, mpsc::UnboundedSender<Answer>);

impl Upstream for Holds {
    fn carry(&self, exchange: Exchange) -> Carried<'_> {
        Box::pin(async move {
            let passes = exchange.head.path.as_ref() == b"/small";
            let answer = self.0.carry(exchange).await?;
            if passes {
                return Ok(answer);
            }
            self.1.send(answer).unwrap();
            std::future::pending().await
        })
    }
}

/// Sends as much of `BODY` bytes as there is room for, and counts it.
async fn pour(mut stream: h2::SendStream<Bytes>, count: Arc<AtomicUsize>) {
    let mut left = BODY;
    while left > 0 {
        stream.reserve_capacity(left);
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return;
        };
        if stream.send_data(Bytes::from(vec![b'u'; room]), room == left).is_err() {
            return;
        }
        left -= room;
        count.fetch_add(room, SeqCst);
    }
    std::future::pending::<()>().await;
}

/// Waits until `count` has not changed for a while.
async fn settled(count: &AtomicUsize) -> usize {
    loop {
        let before = count.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        if before > 0 && count.load(SeqCst) == before {
            return before;
        }
    }
}

async fn connect(door: &Door) -> (SendRequest<Bytes>, Task<()>) {
    let tcp = TcpStream::connect(door.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
    (sender, task(async move { drop(connection.await) }))
}

#[tokio::test]
async fn answers_that_nobody_takes_hold_what_the_budget_has() {
    let count = Arc::<AtomicUsize>::default();
    let counted = count.clone();
    let service = raw_service(move |tcp, _| {
        let counted = counted.clone();
        async move {
            let mut connection = h2::server::handshake(tcp).await.unwrap();
            while let Some(Ok((request, mut answer))) = connection.accept().await {
                let small = request.uri().path() == "/small";
                let Ok(mut body) = answer.send_response(Response::new(()), false) else { continue };
                if small {
                    body.send_data(Bytes::from_static(b"small"), true).unwrap();
                } else {
                    tokio::spawn(pour(body, counted.clone()));
                }
            }
        }
    })
    .await;
    let windows = Budget::new(BUDGET);
    let address = format!("h2c://{}", service.address).parse().unwrap();
    let settings = Arc::<Settings>::default();
    let backend = Backend::new(address, settings, windows.clone(), &Trust::default()).unwrap();
    let (kept, mut unread) = mpsc::unbounded_channel();
    let door = open(entry(Arc::new(Holds(backend, kept)), Settings::default())).await;
    let mut senders = Vec::new();
    for _ in 0..MANY {
        let (mut sender, connection) = connect(&door).await;
        let request = Request::get("http://a.example/long").body(()).unwrap();
        senders.push((sender.send_request(request, true).unwrap(), sender, connection));
    }
    let held = soon(settled(&count)).await;
    let most = BUDGET + MANY * LEAST;
    assert!(held <= most, "{held} bytes wait, {most} at most");
    assert!(windows.used() <= most);
    let mut visitor = Visitor::new(door.address, false).await;
    let answer = visitor.send(visitor.request("GET", "/small", full(""))).await;
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "small");
    unread.close();
    while unread.try_recv().is_ok() {}
    drop((senders, visitor));
    until("all is given back", || windows.used() == 0).await;
}
