//! The load generator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Failure;
use crate::serve::digest;

/// How long one answer may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to do.
pub(crate) struct Plan {
    url: Uri,
    requests: u64,
    concurrency: u64,
    h2: bool,
}

impl Plan {
    /// Reads the command line.
    pub(crate) fn parse(words: &[String]) -> Result<Plan, Failure> {
        let mut plan = Plan { url: Uri::default(), requests: 1000, concurrency: 10, h2: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|n| n.parse().ok()).ok_or(crate::HELP);
            match word.as_str() {
                "--requests" => plan.requests = number()?,
                "--concurrency" => plan.concurrency = number()?,
                "--h2" => plan.h2 = true,
                url => plan.url = url.parse()?,
            }
        }
        if plan.url.authority().is_none() || plan.concurrency == 0 {
            return Err(crate::HELP.into());
        }
        Ok(plan)
    }
}

#[derive(Default)]
struct Tally {
    next: AtomicU64,
    right: AtomicU64,
    /// A digest of some other request came back.
    mixed: AtomicU64,
    /// No answer, a status other than 200, or a cut one.
    lost: AtomicU64,
}

enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Carries the plan out; true when every answer was right.
pub(crate) async fn run(plan: Plan) -> Result<bool, Failure> {
    let plan = Arc::new(plan);
    let tally = Arc::new(Tally::default());
    let shared = if plan.h2 { Some(dial_http2(&plan).await?) } else { None };
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..plan.concurrency {
        workers.spawn(work(plan.clone(), tally.clone(), shared.clone()));
    }
    let mut times: Vec<Duration> = workers.join_all().await.into_iter().flatten().collect();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 1000).map_or(0, Duration::as_micros);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        r#"{{"requests":{},"right":{},"mixed":{},"lost":{},"seconds":{:.3},"p50_us":{},"p99_us":{}}}"#,
        plan.requests,
        count(&tally.right),
        count(&tally.mixed),
        count(&tally.lost),
        began.elapsed().as_secs_f64(),
        at(500),
        at(990),
    );
    Ok(count(&tally.right) == plan.requests)
}

async fn work(
    plan: Arc<Plan>,
    tally: Arc<Tally>,
    shared: Option<http2::SendRequest<Full<Bytes>>>,
) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut connection = shared.clone().map(Connection::Http2);
    loop {
        let number = tally.next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.requests {
            return times;
        }
        let began = Instant::now();
        let counter =
            match tokio::time::timeout(PATIENCE, one(&plan, number, &mut connection)).await {
                Ok(Ok(true)) => &tally.right,
                Ok(Ok(false)) => &tally.mixed,
                failed => {
                    if let Ok(Err(error)) = failed {
                        eprintln!("request {number}: {error}");
                    }
                    connection = shared.clone().map(Connection::Http2);
                    &tally.lost
                }
            };
        counter.fetch_add(1, Ordering::Relaxed);
        times.push(began.elapsed());
    }
}

/// One request; whether its answer is its own.
async fn one(
    plan: &Plan,
    number: u64,
    connection: &mut Option<Connection>,
) -> Result<bool, Failure> {
    let connection = match connection {
        Some(ready) => ready,
        none => none.insert(Connection::Http1(dial_http1(plan).await?)),
    };
    let target = format!("{}?number={number}", plan.url.path());
    let body = body(number);
    let wanted = digest("POST", &target, &body);
    let authority = plan.url.authority().map_or("", |authority| authority.as_str());
    let answer = match connection {
        Connection::Http1(sender) => {
            sender.ready().await?;
            let request = Request::post(&target).header("host", authority);
            sender.send_request(request.body(Full::new(body))?).await?
        }
        Connection::Http2(sender) => {
            sender.ready().await?;
            let request = Request::post(format!("http://{authority}{target}"));
            sender.send_request(request.body(Full::new(body))?).await?
        }
    };
    let status = answer.status();
    let got = answer.into_body().collect().await?.to_bytes();
    if status != 200 {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&got).trim_end()).into());
    }
    Ok(got == wanted)
}

/// A body of 0 to 600 bytes that no other request has.
fn body(number: u64) -> Bytes {
    let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let length = (number % 76) as usize;
    Bytes::from(seed.repeat(length))
}

async fn dial(plan: &Plan) -> Result<TokioIo<TcpStream>, Failure> {
    let authority = plan.url.authority().map_or("", |authority| authority.as_str());
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

async fn dial_http1(plan: &Plan) -> Result<http1::SendRequest<Full<Bytes>>, Failure> {
    let (sender, driver) = http1::handshake(dial(plan).await?).await?;
    tokio::spawn(driver);
    Ok(sender)
}

async fn dial_http2(plan: &Plan) -> Result<http2::SendRequest<Full<Bytes>>, Failure> {
    let (sender, driver) = http2::handshake(TokioExecutor::new(), dial(plan).await?).await?;
    tokio::spawn(driver);
    Ok(sender)
}
