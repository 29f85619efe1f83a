//! Many gRPC calls of both directions at once, each with a message every second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::Failure;

/// Calls on one connection: fewer than any server allows.
const ON_ONE: u64 = 100;
/// How long one echo may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the calls have to open before the first message: opening is not what is timed.
const OPENING: Duration = Duration::from_millis(1500);
const EVERY: Duration = Duration::from_secs(1);

/// What to do.
pub(crate) struct Plan {
    url: Uri,
    calls: u64,
    messages: u32,
}

impl Plan {
    /// Reads the command line.
    pub(crate) fn parse(words: &[String]) -> Result<Plan, Failure> {
        let [calls, messages, url] = words else { return Err(crate::HELP.into()) };
        Ok(Plan { url: url.parse()?, calls: calls.parse()?, messages: messages.parse()? })
    }
}

/// A body that yields what it is sent.
pub(crate) struct Sent(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

pub(crate) type Sender = http2::SendRequest<Sent>;

/// A connection for calls.
pub(crate) async fn dial(url: &Uri) -> Result<Sender, Failure> {
    let stream = TcpStream::connect(url.authority().ok_or(crate::HELP)?.as_str()).await?;
    stream.set_nodelay(true)?;
    let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    Ok(sender)
}

/// Opens a call; its messages go into the channel.
pub(crate) async fn open(
    connection: &mut Sender,
    url: &Uri,
) -> Result<(mpsc::Sender<Bytes>, Response<Incoming>), Failure> {
    let (messages, body) = mpsc::channel(4);
    let request = Request::post(url)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Sent(body))?;
    connection.ready().await?;
    let answer = connection.send_request(request).await?;
    match answer.headers().get("grpc-status").or(answer.headers().get("x-strait-error")) {
        Some(status) => Err(format!("refused: {status:?} {:?}", answer.headers()).into()),
        None => Ok((messages, answer)),
    }
}

/// A message of eight bytes with its gRPC prefix.
pub(crate) fn message(call: u64, number: u32) -> Bytes {
    let mut bytes = BytesMut::with_capacity(13);
    bytes.put_u8(0);
    bytes.put_u32(8);
    bytes.put_u32(call as u32);
    bytes.put_u32(number);
    bytes.freeze()
}

/// Carries the plan out; true when every message came back, in order.
pub(crate) async fn run(plan: Plan) -> Result<bool, Failure> {
    let plan = Arc::new(plan);
    let right = Arc::new(AtomicU64::new(0));
    let (mut tasks, mut connection) = (JoinSet::new(), None);
    let began = Instant::now();
    for call in 0..plan.calls {
        if call % ON_ONE == 0 {
            connection = Some(dial(&plan.url).await?);
        }
        let Some(mut connection) = connection.clone() else { continue };
        let (plan, right) = (Arc::clone(&plan), Arc::clone(&right));
        tasks.spawn(async move {
            let ended = chat(&plan, call, &mut connection, &right, began + OPENING).await;
            ended.map_err(|error| format!("call {call}: {error}"))
        });
    }
    let (mut times, mut failed) = (Vec::new(), 0);
    while let Some(ended) = tasks.join_next().await {
        match ended? {
            Ok(more) => times.extend(more),
            Err(error) => {
                failed += 1;
                eprintln!("{error}");
            }
        }
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 1000).map_or(0, Duration::as_micros);
    let right = right.load(Ordering::Relaxed);
    println!(
        r#"{{"right":{right},"failed":{failed},"seconds":{:.3},"p50_us":{},"p99_us":{},"max_us":{}}}"#,
        began.elapsed().as_secs_f64(),
        at(500),
        at(990),
        times.last().map_or(0, Duration::as_micros),
    );
    Ok(right == plan.calls * u64::from(plan.messages))
}

/// One call; the times of its echoes. What comes back must be what was sent, in order.
async fn chat(
    plan: &Plan,
    call: u64,
    connection: &mut Sender,
    right: &AtomicU64,
    start: Instant,
) -> Result<Vec<Duration>, Failure> {
    let opened = timeout(PATIENCE, open(connection, &plan.url)).await;
    let (messages, answer) = opened.map_err(|_| "not open in time")??;
    let (mut body, mut times, mut rest) = (answer.into_body(), Vec::new(), BytesMut::new());
    // Spread over the second, so that the generator is no crowd by itself.
    let first = start.max(Instant::now()) + EVERY.mul_f64(call as f64 / plan.calls as f64);
    for number in 0..plan.messages {
        let due = first + EVERY * number;
        sleep_until(due.into()).await;
        let sent = message(call, number);
        messages.send(sent.clone()).await.map_err(|_| "the call ended early")?;
        while rest.len() < sent.len() {
            let frame = timeout(PATIENCE, body.frame()).await.map_err(|_| "no echo in time")?;
            let frame = frame.ok_or("the answer ended early")??;
            rest.extend_from_slice(&frame.into_data().map_err(|_| "trailers came early")?);
        }
        if rest[..sent.len()] != sent {
            return Err(format!("got {:?} for {sent:?}", &rest[..sent.len()]).into());
        }
        rest.advance(sent.len());
        right.fetch_add(1, Ordering::Relaxed);
        // From the time at which it was due: a late start is a late answer.
        times.push(due.elapsed());
    }
    drop(messages);
    let end = timeout(PATIENCE, body.collect()).await.map_err(|_| "no end in time")??;
    let status = end.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
    if !rest.is_empty() || status.as_ref().is_none_or(|status| status != "0") {
        return Err(format!("ended with {status:?}").into());
    }
    Ok(times)
}
