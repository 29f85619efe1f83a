//! Visitors of all three protocols who go away at a moment that nobody expects.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Uri;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::{Failure, calls, sockets};

/// Nobody stays longer.
const LONGEST: Duration = Duration::from_millis(120);
/// Between two reads, so that it is not speed that is tried here.
const PAUSE: Duration = Duration::from_millis(5);
/// Pauses for which a patient one waits for its answer to begin.
const PATIENCE: u32 = 400;
/// Calls that one connection carries before it is dropped with all that is open on it.
const CALLS: u64 = 50;

/// What to do.
pub(crate) struct Plan {
    requests: u64,
    concurrency: u64,
    /// Visited in turn.
    urls: Vec<Uri>,
}

impl Plan {
    /// Reads the command line.
    pub(crate) fn parse(words: &[String]) -> Result<Plan, Failure> {
        let [requests, concurrency, urls @ ..] = words else { return Err(crate::HELP.into()) };
        let urls = urls.iter().map(|url| url.parse()).collect::<Result<Vec<Uri>, _>>()?;
        if urls.is_empty() || urls.iter().any(|url| url.authority().is_none()) {
            return Err(crate::HELP.into());
        }
        Ok(Plan { requests: requests.parse()?, concurrency: concurrency.parse()?, urls })
    }
}

/// How it went, by what was seen before the visitor left.
#[derive(Default)]
struct Tally {
    next: AtomicU64,
    /// An answer had begun.
    begun: AtomicU64,
    /// An answer of 4xx or 5xx had begun.
    refused: AtomicU64,
    /// Nothing yet.
    silent: AtomicU64,
}

/// Carries the plan out. It cannot fail: what was left behind is seen at the nodes.
pub(crate) async fn run(plan: Plan) -> Result<bool, Failure> {
    let (plan, tally) = (Arc::new(plan), Arc::new(Tally::default()));
    let mut workers = JoinSet::new();
    for _ in 0..plan.concurrency {
        workers.spawn(work(Arc::clone(&plan), Arc::clone(&tally)));
    }
    workers.join_all().await;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let [begun, refused, silent] =
        [count(&tally.begun), count(&tally.refused), count(&tally.silent)];
    println!(r#"{{"begun":{begun},"refused":{refused},"silent":{silent}}}"#);
    Ok(begun + refused + silent == plan.requests)
}

async fn work(plan: Arc<Plan>, tally: Arc<Tally>) {
    let mut connection = None;
    loop {
        let number = tally.next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.requests {
            return;
        }
        // Scattered, and the same in every run.
        let dice = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let stay = LONGEST.mul_f64((dice >> 8 & 0xffff) as f64 / 65536.0);
        let url = &plan.urls[(dice % plan.urls.len() as u64) as usize];
        let seen = Seen::default();
        let mut visit = Box::pin(async {
            match number % 8 {
                6 | 7 => call(url, &mut connection, number, &seen).await,
                kind => visit(url, kind, dice & 64 == 0, &seen).await,
            }
        });
        // Half of those who can have an answer wait for it to begin, however busy all is.
        let patient = dice & 128 == 0 && !matches!(number % 8, 0 | 2 | 3);
        let (mut rounds, mut over) = (if patient { PATIENCE } else { 0 }, false);
        while !over && rounds > 0 && seen.0.load(Ordering::Relaxed) == 0 {
            over = timeout(PAUSE, &mut visit).await.is_ok();
            rounds -= 1;
        }
        if !over {
            let _ = timeout(stay, &mut visit).await;
        }
        drop(visit);
        if number.is_multiple_of(CALLS) {
            connection = None;
        }
        let counter = match seen.0.load(Ordering::Relaxed) {
            0 => &tally.silent,
            status if status < 400 => &tally.begun,
            _ => &tally.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The status that a visitor has seen; 0 until then.
#[derive(Default)]
struct Seen(AtomicU64);

/// One visitor of HTTP/1.1 or WebSocket, who reads until the end of its time.
async fn visit(url: &Uri, kind: u64, reset: bool, seen: &Seen) -> Result<(), Failure> {
    let authority = url.authority().ok_or(crate::HELP)?.as_str();
    let path = url.path();
    let mut stream = TcpStream::connect(authority).await?;
    if reset {
        stream.set_zero_linger()?;
    }
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: {authority}\r\n");
    let (text, upload) = match kind {
        0 => (head(&format!("GET {path}/wait?ms=60000")) + "\r\n", 0),
        1 => (head(&format!("GET {path}/endless?n=4000000")) + "\r\n", 0),
        2 => (head(&format!("POST {path}/digest")) + "Content-Length: 900000\r\n\r\n", 300_000),
        3 => (
            head(&format!("POST {path}/digest"))
                + "Transfer-Encoding: chunked\r\n\r\n3e8\r\nnot all of it",
            0,
        ),
        4 => (sockets::handshake(authority, &format!("{path}/echo")), 0),
        _ => (head(&format!("GET {path}/small")) + "\r\n", 0),
    };
    stream.write_all(text.as_bytes()).await?;
    stream.write_all(&vec![b'x'; upload]).await?;
    let mut buffer = vec![0; 16 * 1024];
    let count = stream.read(&mut buffer).await?;
    let status = std::str::from_utf8(&buffer[..count.min(12)])?.get(9..12).unwrap_or("0");
    seen.0.store(status.parse()?, Ordering::Relaxed);
    for message in 0.. {
        if kind == 4 {
            stream.write_all(&sockets::frame(0, message)).await?;
        }
        if stream.read(&mut buffer).await? == 0 {
            break;
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// One gRPC call, on a connection shared with others.
async fn call(
    url: &Uri,
    connection: &mut Option<calls::Sender>,
    number: u64,
    seen: &Seen,
) -> Result<(), Failure> {
    let connection = match connection {
        Some(open) if !open.is_closed() => open,
        none => none.insert(calls::dial(url).await?),
    };
    let opened = calls::open(connection, url).await;
    seen.0.store(if opened.is_ok() { 200 } else { 500 }, Ordering::Relaxed);
    let (messages, answer) = opened?;
    let mut body = answer.into_body();
    for count in 0.. {
        messages.send(calls::message(number, count)).await?;
        if body.frame().await.is_none() {
            break;
        }
        sleep(PAUSE).await;
    }
    Ok(())
}
