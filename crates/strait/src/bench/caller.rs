//! Callers of small requests, with a clock.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::backend::{SMALL, SMALL_SIZE};

/// Connections that a pool has at most. A request beyond them waits, and that is counted.
const MOST: usize = 400;

/// One kept connection to an HTTP/1.1 address.
pub(crate) struct Caller {
    address: SocketAddr,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Caller {
    /// A caller that connects when it has something to ask.
    pub(crate) fn new(address: SocketAddr) -> Caller {
        Caller { address, sender: None }
    }

    /// Asks once, and reads the whole answer.
    ///
    /// # Errors
    /// When the answer is cut or not the one that is expected. The next request then
    /// has a new connection.
    pub(crate) async fn get(&mut self) -> io::Result<()> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        sender.ready().await.map_err(io::Error::other)?;
        let request = Request::get(SMALL).header(header::HOST, self.address.to_string());
        let request = request.body(Empty::new()).map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        if !status.is_success() || body.len() != SMALL_SIZE {
            return Err(io::Error::other(format!("answered {status} with {} bytes", body.len())));
        }
        self.sender = Some(sender);
        Ok(())
    }

    async fn connect(&self) -> io::Result<SendRequest<Empty<Bytes>>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) =
            handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
        // Ends by itself when the sender is dropped.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// As many callers as there are requests at once.
pub(crate) struct Callers {
    address: SocketAddr,
    idle: Mutex<Vec<Caller>>,
    free: Semaphore,
}

impl Callers {
    /// Callers of `address`.
    pub(crate) fn new(address: SocketAddr) -> Callers {
        Callers { address, idle: Mutex::default(), free: Semaphore::new(MOST) }
    }

    /// Asks once, on a connection that nobody uses.
    ///
    /// # Errors
    /// As [`Caller::get`].
    pub(crate) async fn get(&self) -> io::Result<()> {
        let _turn = self.free.acquire().await.map_err(io::Error::other)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut caller = idle.unwrap_or_else(|| Caller::new(self.address));
        caller.get().await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(caller);
        Ok(())
    }
}
