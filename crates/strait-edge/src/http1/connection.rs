//! A connection to a service that serves one request at a time.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use crate::half::{Half, poll_read_into};
use crate::io::Conn;
use crate::pool::GOODBYE;

/// Bytes that are read at once while much comes; they travel on in the buffer they came in.
const BULK: usize = 128 << 10;
/// Bytes of a read from which on more is taken to follow. What is less goes into a buffer of its
/// own size, so that none larger waits with it.
const MUCH: usize = 32 << 10;

/// A connection and what was read from it. Dropped, it closes.
pub(crate) struct Connection {
    half: Half,
    /// What was read and is not used yet. Without a buffer while nothing is.
    pub(crate) input: BytesMut,
    /// The last read was a large one.
    bulk: bool,
    /// No more is read the next time.
    most: usize,
    patience: Option<Pin<Box<Sleep>>>,
    /// Its end is told before it closes.
    secure: bool,
}

impl Connection {
    pub(crate) fn new(conn: Conn) -> Connection {
        let secure = conn.is_secure();
        let half = Half::new(conn);
        let input = BytesMut::new();
        Connection { half, input, bulk: false, most: usize::MAX, patience: None, secure }
    }

    /// One that a visitor has made. Whoever serves it tells of its end.
    pub(crate) fn of_visitor(conn: Conn) -> Connection {
        let mut connection = Connection::new(conn);
        connection.secure = false;
        connection
    }

    /// The connection for who writes to it.
    pub(crate) fn half(&mut self) -> &mut Half {
        &mut self.half
    }

    /// Whether the service has said nothing since its last answer was taken, as far as is known
    /// without waiting. Its end is something, too.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.half).poll_read(&mut cx, &mut byte).is_pending()
    }

    /// The same, as far as the kernel knows, for the price of a call.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.is_quiet() && self.half.is_silent()
    }

    /// No more than so many bytes are read the next time.
    pub(crate) fn at_most(&mut self, bytes: usize) {
        self.most = bytes;
    }

    /// Reads more to the end of `input`; `Ok(0)` is the connection's end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !(self.bulk && self.input.is_empty() && self.most >= BULK) {
            let read = ready!(poll_read_into(&mut self.half, &mut self.input, self.most, cx))?;
            self.bulk = read >= MUCH;
            self.most = usize::MAX;
            return Poll::Ready(Ok(read));
        }
        // Not kept while nothing comes.
        let mut buffer = BytesMut::with_capacity(BULK);
        let read = ready!(pin!(self.half.read_buf(&mut buffer)).poll(cx))?;
        self.bulk = read >= MUCH;
        self.input = if self.bulk { buffer } else { BytesMut::from(&buffer[..]) };
        Poll::Ready(Ok(read))
    }

    /// Ready at the time `until`. One timer serves all requests of the connection: it is set anew
    /// when it rings, not for each of them.
    pub(crate) fn poll_until(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = || Box::pin(tokio::time::sleep_until(until));
        let sleep = self.patience.get_or_insert_with(sleep);
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        ready!(sleep.as_mut().poll(cx));
        if sleep.deadline() < until {
            sleep.as_mut().reset(until);
            return sleep.as_mut().poll(cx);
        }
        Poll::Ready(())
    }

    /// What both sides have agreed to use for something else. `None` while somebody else still
    /// writes to it.
    pub(crate) fn into_conn(mut self) -> Option<Conn> {
        let half = self.half.clone();
        let unused = std::mem::take(&mut self.input).freeze();
        self.secure = false;
        drop(self);
        half.into_conn().map(|conn| conn.unread(unused))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.secure
            && let Ok(runtime) = Handle::try_current()
        {
            let mut half = self.half.clone();
            runtime.spawn(async move { tokio::time::timeout(GOODBYE, half.shutdown()).await });
        }
    }
}
