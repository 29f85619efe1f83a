//! The load generator of the bench: one thread, so that its share of CPU tells whether it
//! is what is measured.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::Failure;
use crate::frames;
use crate::tally::Tally;
use crate::upload::{Messages, Upload};

/// How long one answer may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a worker waits after a failure.
const PAUSE: Duration = Duration::from_millis(20);
/// The payload of one WebSocket or gRPC message.
const MESSAGE: [u8; 64] = [b'm'; 64];

/// What to do.
pub(crate) struct Drive {
    kind: String,
    to: String,
    /// Workers, each with one thing on its way.
    streams: usize,
    /// Connections that gRPC calls share.
    connections: usize,
    seconds: f64,
    /// Things, or MiB of bodies, after which it ends.
    count: u64,
}

impl Drive {
    /// Reads the command line.
    pub(crate) fn parse(words: &[String]) -> Result<Drive, Failure> {
        let [kind, to, flags @ ..] = words else { return Err(crate::HELP.into()) };
        let (kind, to) = (kind.clone(), to.clone());
        let mut drive =
            Drive { kind, to, streams: 64, connections: 1, seconds: 3.0, count: u64::MAX };
        for pair in flags.chunks(2) {
            let [flag, value] = pair else { return Err(crate::HELP.into()) };
            match flag.as_str() {
                "--streams" => drive.streams = value.parse()?,
                "--connections" => drive.connections = value.parse()?,
                "--seconds" => drive.seconds = value.parse()?,
                "--count" => drive.count = value.parse()?,
                _ => return Err(crate::HELP.into()),
            }
        }
        let seconds = (0.1..=600.0).contains(&drive.seconds);
        if !seconds || drive.streams == 0 || drive.connections == 0 {
            return Err(crate::HELP.into());
        }
        Ok(drive)
    }
}

type Sender = http2::SendRequest<Full<Bytes>>;

/// Carries it out; true when most of it was answered rightly.
pub(crate) async fn run(drive: Drive) -> Result<bool, Failure> {
    if drive.kind == "idle" {
        return idle(&drive).await;
    }
    if !["get", "new", "down", "up", "echo", "unary", "stream"].contains(&drive.kind.as_str()) {
        return Err(crate::HELP.into());
    }
    let mut shared = Vec::new();
    if drive.kind == "unary" {
        for _ in 0..drive.connections {
            shared.push(dial_http2(&drive.to).await?);
        }
    }
    let drive = Rc::new(drive);
    let began = Instant::now();
    let tally = Rc::new(Tally::new(began + Duration::from_secs_f64(drive.seconds), drive.count));
    let local = LocalSet::new();
    for number in 0..drive.streams {
        let (drive, tally) = (Rc::clone(&drive), Rc::clone(&tally));
        let sender = shared.get(number % shared.len().max(1)).cloned();
        local.spawn_local(async move {
            while tally.wants_more() {
                let work = work(&drive, &tally, sender.clone());
                // What is on its way at the end has neither succeeded nor failed.
                if let Ok(Err(error)) = tokio::time::timeout_at(tally.until().into(), work).await {
                    tally.fail(&*error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
    }
    local.await;
    println!("{}", tally.json(began.elapsed()));
    Ok(tally.is_some())
}

/// Works until it is enough, or until something goes wrong.
async fn work(drive: &Drive, tally: &Rc<Tally>, sender: Option<Sender>) -> Result<(), Failure> {
    let to = drive.to.as_str();
    match drive.kind.as_str() {
        "get" => {
            let mut sender = dial_http1(to).await?;
            while tally.wants_more() {
                sender.ready().await?;
                timed(tally, small(to, &mut sender)).await?;
            }
            Ok(())
        }
        "new" => {
            while tally.wants_more() {
                timed(tally, async { small(to, &mut dial_http1(to).await?).await }).await?;
            }
            Ok(())
        }
        "down" => down(to, tally).await,
        "up" => {
            let mut sender = dial_http1(to).await?;
            let request = Request::post("/up").header("host", to);
            let answer = sender.send_request(request.body(Upload::new(Rc::clone(tally)))?).await?;
            Err(format!("the upload was answered {} before its end", answer.status()).into())
        }
        "echo" => echo(to, tally).await,
        "unary" => unary(to, tally, sender.ok_or("no connection")?).await,
        _ => stream(to, tally).await,
    }
}

/// Notes how long one thing took that must not take for ever.
async fn timed<T>(
    tally: &Tally,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let began = Instant::now();
    let done = tokio::time::timeout(PATIENCE, work).await.map_err(|_| "no answer in time")??;
    tally.done(began.elapsed());
    Ok(done)
}

async fn dial(to: &str) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn dial_http1<B>(to: &str) -> Result<http1::SendRequest<B>, Failure>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Failure>,
{
    let (sender, driver) = http1::handshake(TokioIo::new(dial(to).await?)).await?;
    tokio::task::spawn_local(driver);
    Ok(sender)
}

async fn dial_http2<B>(to: &str) -> Result<http2::SendRequest<B>, Failure>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Failure>,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_connection_window_size(16 << 20);
    let (sender, driver) = builder.handshake(TokioIo::new(dial(to).await?)).await?;
    tokio::spawn(driver);
    Ok(sender)
}

fn right<B>(answer: &Response<B>) -> Result<(), Failure> {
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(format!("answered {}", answer.status()).into()),
    }
}

/// A small request.
async fn small(to: &str, sender: &mut http1::SendRequest<Full<Bytes>>) -> Result<(), Failure> {
    let request = Request::get("/small").header("host", to).body(Full::<Bytes>::default())?;
    let answer = sender.send_request(request).await?;
    right(&answer)?;
    let body = answer.into_body().collect().await?.to_bytes();
    if body.len() == 1024 { Ok(()) } else { Err("a cut answer".into()) }
}

async fn down(to: &str, tally: &Tally) -> Result<(), Failure> {
    let mut sender = dial_http1(to).await?;
    while tally.wants_more() {
        sender.ready().await?;
        let request = Request::get("/bulk").header("host", to).body(Full::<Bytes>::default())?;
        let answer = sender.send_request(request).await?;
        right(&answer)?;
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            tally.carried(frame?.data_ref().map_or(0, Bytes::len));
            if !tally.wants_more() {
                return Ok(());
            }
        }
        tally.done(Duration::ZERO);
    }
    Ok(())
}

/// Opens a WebSocket.
async fn socket(to: &str) -> Result<TcpStream, Failure> {
    let mut socket = dial(to).await?;
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: {to}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, socket.read_u8()).await;
        head.push(byte.map_err(|_| "no answer in time")??);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        return Err("the WebSocket was refused".into());
    }
    Ok(socket)
}

async fn echo(to: &str, tally: &Tally) -> Result<(), Failure> {
    let mut socket = socket(to).await?;
    let (sent, expected) = (frames::masked(&MESSAGE), frames::plain(&MESSAGE));
    let mut came = vec![0; expected.len()];
    while tally.wants_more() {
        timed(tally, async {
            socket.write_all(&sent).await?;
            socket.read_exact(&mut came).await?;
            if came == expected { Ok(()) } else { Err("not the message that was sent".into()) }
        })
        .await?;
    }
    Ok(())
}

/// Opens sockets, tells so, and holds them until standard input ends.
async fn idle(drive: &Drive) -> Result<bool, Failure> {
    let mut sockets = Vec::new();
    for _ in 0..drive.streams {
        sockets.push(socket(&drive.to).await?);
    }
    println!(r#"{{"open":{}}}"#, sockets.len());
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await??;
    Ok(true)
}

fn call<B>(to: &str, body: B) -> Result<Request<B>, Failure> {
    let request = Request::post(format!("http://{to}/bench.Bench/Echo"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    Ok(request.body(body)?)
}

/// One gRPC message: not compressed, its length, its bytes.
pub(crate) fn message() -> Bytes {
    let mut message = vec![0];
    message.extend((MESSAGE.len() as u32).to_be_bytes());
    message.extend(MESSAGE);
    Bytes::from(message)
}

async fn unary(to: &str, tally: &Tally, mut sender: Sender) -> Result<(), Failure> {
    let message = message();
    while tally.wants_more() {
        timed(tally, async {
            sender.ready().await?;
            let answer = sender.send_request(call(to, Full::new(message.clone()))?).await?;
            right(&answer)?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await?;
            let (heads, trailers) = (head.headers, body.trailers().cloned().unwrap_or_default());
            let of = |name| trailers.get(name).or_else(|| heads.get(name));
            let (status, why) = (of("grpc-status"), of("grpc-message"));
            let bytes = body.to_bytes();
            if status.is_some_and(|status| status == "0") && bytes == message {
                return Ok(());
            }
            let bytes = bytes.len();
            Err(format!("gRPC status {status:?}, message {why:?}, {bytes} bytes").into())
        })
        .await?;
    }
    Ok(())
}

/// One call, on which messages go to and fro one at a time.
async fn stream(to: &str, tally: &Tally) -> Result<(), Failure> {
    let mut sender = dial_http2(to).await?;
    let (messages, body) = Messages::new();
    let message = message();
    messages.send(message.clone()).await.map_err(|_| "the call has ended")?;
    let answer = sender.send_request(call(to, body)?).await?;
    right(&answer)?;
    let mut answers = answer.into_body();
    read_one(&mut answers, message.len()).await?;
    while tally.wants_more() {
        timed(tally, async {
            messages.send(message.clone()).await.map_err(|_| "the call has ended")?;
            read_one(&mut answers, message.len()).await
        })
        .await?;
    }
    Ok(())
}

async fn read_one(answers: &mut Incoming, mut left: usize) -> Result<(), Failure> {
    while left > 0 {
        let frame = answers.frame().await.ok_or("the call has ended")??;
        let size = frame.data_ref().map_or(0, Bytes::len);
        left = left.checked_sub(size).ok_or("more than was sent")?;
    }
    Ok(())
}
