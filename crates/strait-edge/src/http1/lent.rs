//! The body of a visitor's request. While it is read, the connection's reading side is lent to
//! whoever reads it, which may be another task than the one that serves the connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use strait_engine::{Data, Fault, Part, Reason};
use tokio::io::AsyncWrite;

use crate::half_close::INTERIM;
use crate::http::incoming::visitor_fault;
use crate::http1::body::Decoder;
use crate::http1::chunked::Step;
use crate::http1::connection::Connection;
use crate::http1::framing::Framing;

/// What whoever serves the connection knows of the body that he has lent it to.
pub(crate) struct Lent(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The connection, and what is still to come of the body, when it is not read any more.
    back: Option<(Connection, Decoder)>,
    /// Nothing comes back: it broke.
    broken: bool,
    /// The answer has begun: nothing may be written before it any more.
    answering: bool,
    waker: Option<Waker>,
}

impl Lent {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// The answer begins.
    pub(crate) fn answering(&self) {
        self.lock().answering = true;
    }

    /// The connection, when the body is not read any more, and what is left of that; `None` when
    /// the connection broke meanwhile.
    pub(crate) fn poll_back(&self, cx: &Context<'_>) -> Poll<Option<(Connection, Decoder)>> {
        let mut state = self.lock();
        if let Some(back) = state.back.take() {
            return Poll::Ready(Some(back));
        }
        if state.broken {
            return Poll::Ready(None);
        }
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body of a request that has one.
pub(crate) struct RequestBody {
    /// Until its end, or until it breaks.
    reading: Option<Reading>,
    ended: bool,
    state: Arc<Mutex<State>>,
}

struct Reading {
    connection: Connection,
    decoder: Decoder,
    /// What follows what was given out: an end is known with the last piece.
    ahead: Option<Result<Step, &'static str>>,
    /// What is still to be written before the visitor sends it.
    interim: &'static [u8],
}

impl RequestBody {
    /// The body that comes by `connection`, framed like this, with at most `max_fields` trailer
    /// fields.
    pub(crate) fn lend(
        connection: Connection,
        framing: Framing,
        max_fields: usize,
    ) -> (RequestBody, Lent) {
        let state = Arc::<Mutex<State>>::default();
        let decoder = Decoder::new(framing, max_fields);
        let reading = Reading { connection, decoder, ahead: None, interim: b"" };
        let lent = Lent(Arc::clone(&state));
        (RequestBody { reading: Some(reading), ended: false, state }, lent)
    }

    /// The visitor waits for `100 Continue`, which it is told when the body is first asked for.
    pub(crate) fn await_continue(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.interim = INTERIM;
        }
    }

    /// Whether the end is already known.
    pub(crate) fn is_end(&self) -> bool {
        self.ended
    }

    /// No more than so many bytes are read for the next part.
    pub(crate) fn at_most(&mut self, bytes: usize) {
        if let Some(reading) = &mut self.reading {
            reading.connection.at_most(bytes);
        }
    }

    /// The next part of it; `None` at the end.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        if !reading.interim.is_empty() {
            // An answer says by itself what becomes of the body.
            if lock(&self.state).answering {
                reading.interim = b"";
            } else if let Err(fault) = ready!(reading.poll_interim(cx)) {
                return Poll::Ready(Some(Err(self.broken(fault))));
            }
        }
        let step = match ready!(reading.poll_step(cx)) {
            Ok(step) => step,
            Err(fault) => return Poll::Ready(Some(Err(self.broken(fault)))),
        };
        Poll::Ready(match step {
            Step::Data(bytes) => {
                match reading.decoder.next(&mut reading.connection.input).transpose() {
                    Some(Ok(Step::End(None))) => self.end(),
                    ahead => reading.ahead = ahead,
                }
                Some(Ok(Part::Data(Data::plain(bytes))))
            }
            Step::End(trailers) => {
                self.end();
                trailers.map(|trailers| Ok(Part::Trailers(trailers)))
            }
        })
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(reading) = &mut self.reading {
            reading.decoder = Decoder::Length(0);
        }
        self.give_back();
    }

    /// It is over, or not wanted any more.
    fn give_back(&mut self) {
        let Some(Reading { connection, decoder, ahead, .. }) = self.reading.take() else { return };
        let left = match ahead {
            Some(Err(_)) => return self.tell(None),
            Some(Ok(Step::End(_))) => Decoder::Length(0),
            Some(Ok(Step::Data(_))) | None => decoder,
        };
        self.tell(Some((connection, left)));
    }

    /// Nothing more can be read.
    fn broken(&mut self, fault: Fault) -> Fault {
        self.reading = None;
        self.tell(None);
        fault
    }

    /// Tells whoever has lent the connection what is left of it.
    fn tell(&self, back: Option<(Connection, Decoder)>) {
        let mut state = lock(&self.state);
        state.broken = back.is_none();
        state.back = back;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Reading {
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let gone = |error| Fault::because(Reason::Cancelled, format!("the visitor left: {error}"));
        while !self.interim.is_empty() {
            let half = Pin::new(self.connection.half());
            let written = ready!(half.poll_write(cx, self.interim)).map_err(gone)?;
            self.interim = &self.interim[written..];
        }
        Pin::new(self.connection.half()).poll_flush(cx).map_err(gone)
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Fault>> {
        let bad = |what| Fault::because(Reason::BadRequest, what);
        if let Some(step) = self.ahead.take() {
            return Poll::Ready(step.map_err(bad));
        }
        loop {
            if let Some(step) = self.decoder.next(&mut self.connection.input).map_err(bad)? {
                return Poll::Ready(Ok(step));
            }
            match ready!(self.connection.poll_read(cx)) {
                Ok(0) => {
                    let what = "the visitor closed the connection within its request";
                    return Poll::Ready(Err(Fault::because(Reason::Cancelled, what)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(visitor_fault(Some(&error), &error))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::io::{Conn, Stream};

    /// A visitor who has sent `wire`, and what reads it as a body in chunks.
    async fn sent(wire: &[u8]) -> (TcpStream, RequestBody, Lent) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut visitor = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        visitor.write_all(wire).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let connection = Connection::of_visitor(Conn::new(Stream::Tcp(tcp), Bytes::new()));
        let (body, lent) = RequestBody::lend(connection, Framing::Chunked, 10);
        (visitor, body, lent)
    }

    async fn data(body: &mut RequestBody) -> Bytes {
        match poll_fn(|cx| body.poll_part(cx)).await {
            Some(Ok(Part::Data(data))) => data.bytes,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_left_comes_back_unless_it_is_malformed() {
        for (rest, comes_back) in [("", true), ("1\r\nx", true), ("0\r\n\r\n", true), ("zz", false)]
        {
            let (_visitor, mut body, lent) = sent(format!("5\r\nhello\r\n{rest}").as_bytes()).await;
            assert_eq!(data(&mut body).await, "hello");
            assert_eq!(body.is_end(), rest.starts_with('0'));
            drop(body);
            let back = poll_fn(|cx| lent.poll_back(cx)).await;
            assert_eq!(back.is_some(), comes_back, "{rest:?}");
            let whole = matches!(back, Some((_, Decoder::Length(0))));
            assert_eq!(whole, rest.starts_with('0'), "{rest:?}");
        }
    }

    #[tokio::test]
    async fn no_more_is_read_than_there_is_room_for() {
        let wire = format!("40000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x40000));
        let (_visitor, mut body, _lent) = sent(wire.as_bytes()).await;
        let (mut got, mut largest) = (0, 0);
        while got < 0x40000 {
            let small = got < 0x10000;
            if small {
                body.at_most(5000);
            }
            let piece = data(&mut body).await.len();
            assert!(!small || piece <= 5000, "{piece} bytes at once");
            (got, largest) = (got + piece, largest.max(piece));
        }
        assert!(largest > 5000, "it holds for the next read only");
    }

    #[tokio::test]
    async fn a_body_is_asked_for_once_and_not_behind_the_answer() {
        let (mut visitor, mut body, lent) = sent(b"5\r\nhello\r\n5\r\nagain\r\n").await;
        body.await_continue();
        assert_eq!(data(&mut body).await, "hello");
        assert_eq!(data(&mut body).await, "again");
        drop((body, lent));
        assert_eq!(visitor.read_to_end(&mut Vec::new()).await.unwrap(), INTERIM.len());
        let (mut visitor, mut body, lent) = sent(b"5\r\nhello\r\n").await;
        body.await_continue();
        lent.answering();
        assert_eq!(data(&mut body).await, "hello");
        drop((body, lent));
        assert_eq!(visitor.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }
}
