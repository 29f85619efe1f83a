//! Many WebSockets: opened, left alone until a line comes on standard input, then used.

use std::time::{Duration, Instant};

use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{Failure, streams};

/// The key of every handshake.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Handshakes that are on their way at once.
const AT_ONCE: usize = 64;
/// How long one step of one socket may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to do.
pub(crate) struct Plan {
    authority: String,
    path: String,
    sockets: usize,
    messages: u32,
}

impl Plan {
    /// Reads the command line.
    pub(crate) fn parse(words: &[String]) -> Result<Plan, Failure> {
        let [sockets, messages, url] = words else { return Err(crate::HELP.into()) };
        let url: Uri = url.parse()?;
        Ok(Plan {
            authority: url.authority().ok_or(crate::HELP)?.to_string(),
            path: url.path().to_owned(),
            sockets: sockets.parse()?,
            messages: messages.parse()?,
        })
    }
}

/// Carries the plan out; true when every echo was right.
pub(crate) async fn run(plan: Plan) -> Result<bool, Failure> {
    let sockets = open_all(&plan).await?;
    println!(r#"{{"open":{}}}"#, sockets.len());
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, socket) in sockets.into_iter().enumerate() {
        tasks.spawn(timeout(PATIENCE, echoes(socket, number as u32, plan.messages)));
    }
    let (mut right, mut first) = (0, None);
    while let Some(ended) = tasks.join_next().await {
        match ended? {
            Ok((count, error)) => {
                right += u64::from(count);
                first = first.or(error);
            }
            Err(_) => first = first.or(Some("a socket was not done in time".into())),
        }
    }
    if let Some(error) = first {
        eprintln!("{error}");
    }
    println!(r#"{{"right":{right},"seconds":{:.3}}}"#, began.elapsed().as_secs_f64());
    Ok(right == plan.sockets as u64 * u64::from(plan.messages))
}

async fn open_all(plan: &Plan) -> Result<Vec<TcpStream>, Failure> {
    let (mut sockets, mut opening, mut begun) = (Vec::new(), JoinSet::new(), 0);
    while sockets.len() < plan.sockets {
        while begun < plan.sockets && opening.len() < AT_ONCE {
            let (authority, path) = (plan.authority.clone(), plan.path.clone());
            opening.spawn(async move { timeout(PATIENCE, open(&authority, &path)).await? });
            begun += 1;
        }
        let Some(opened) = opening.join_next().await else { break };
        let open = sockets.len();
        sockets.push(opened?.map_err(|error| format!("socket {open}: {error}"))?);
    }
    Ok(sockets)
}

/// The text that asks for a WebSocket.
pub(crate) fn handshake(authority: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// Opens one WebSocket. The other side says nothing unasked, so what comes is the head.
pub(crate) async fn open(authority: &str, path: &str) -> Result<TcpStream, Failure> {
    let mut socket = TcpStream::connect(authority).await?;
    socket.set_nodelay(true)?;
    socket.write_all(handshake(authority, path).as_bytes()).await?;
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if socket.read_buf(&mut head).await? == 0 || head.len() > 16 * 1024 {
            return Err("the handshake was cut".into());
        }
    }
    let head = String::from_utf8_lossy(&head);
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(&streams::accept(KEY.as_bytes())) {
        return Err(format!("the handshake was answered {:?}", head.lines().next()).into());
    }
    Ok(socket)
}

/// A masked binary frame of eight bytes: two numbers.
pub(crate) fn frame(socket: u32, message: u32) -> [u8; 14] {
    // A mask of zeros is a mask.
    let mut frame = [0; 14];
    frame[..2].copy_from_slice(&[0x82, 0x80 | 8]);
    frame[6..10].copy_from_slice(&socket.to_be_bytes());
    frame[10..].copy_from_slice(&message.to_be_bytes());
    frame
}

/// Sends `count` numbered messages, one after the other; how many came back right, and
/// what was wrong with the next.
async fn echoes(mut socket: TcpStream, number: u32, count: u32) -> (u32, Option<Failure>) {
    for message in 0..count {
        let sent = frame(number, message);
        let mut got = [0; 10];
        let echoed = async {
            socket.write_all(&sent).await?;
            socket.read_exact(&mut got).await
        };
        if let Err(error) = echoed.await {
            return (message, Some(format!("socket {number}: {error}").into()));
        }
        if got[..2] != [0x82, 8] || got[2..] != sent[6..] {
            return (message, Some(format!("socket {number}: got {got:?} for {sent:?}").into()));
        }
    }
    (count, None)
}
