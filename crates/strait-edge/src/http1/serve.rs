//! HTTP/1 at an entry: one connection, whose requests are answered one after the other.
//!
//! All of it is polled by the connection's one task. While a request is carried, the visitor's end
//! is looked for, so that who leaves is noticed; while an answer is written, too. Only the body of a
//! request may be read elsewhere: see [`Lent`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Method, Response, StatusCode, Version};
use http_body::Body;
use strait_engine::Fault;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use crate::activity::Activity;
use crate::half::Half;
use crate::http::hop::Fields;
use crate::http::incoming::Incoming;
use crate::http::outgoing::Outgoing;
use crate::http1::answer::write::{Asked, write};
use crate::http1::body::Decoder;
use crate::http1::chunked::Step;
use crate::http1::connection::Connection;
use crate::http1::framing::Framing;
use crate::http1::head::Seen;
use crate::http1::lent::{Lent, RequestBody};
use crate::http1::request::read::{Head, take};
use crate::http1::sending::{Sending, Sent};
use crate::io::Conn;
use crate::settings::Settings;
use crate::visit::{Door, Visiting, at_once, refuse_unread, visit};

/// Serves `conn` until it is closed.
///
/// # Errors
/// Why it broke, or was left.
pub(crate) async fn serve(conn: Conn, door: Arc<Door>, settings: &Settings) -> io::Result<()> {
    let mut connection = Connection::of_visitor(conn);
    let half = connection.half().clone();
    let mut line = Line { half, reading: Reading::Here(connection), seen: Seen::default() };
    while let Some(begun) = poll_fn(|cx| line.poll_request(&door, settings, cx)).await? {
        let mut answering = line.carry(begun.visiting, begun.asked, &door.activity).await?;
        if let Some(socket) = begun.upgrade
            && answering.upgrades
        {
            // Boxed, because most connections have no use for its room.
            return Box::pin(line.hand_over(answering, socket)).await;
        }
        if !line.answer(&mut answering).await? {
            break;
        }
    }
    poll_fn(|cx| Pin::new(&mut line.half).poll_shutdown(cx)).await
}

/// A request whose answer is on its way.
struct Begun {
    asked: Asked,
    visiting: Visiting,
    /// Who waits for the connection, if the answer is to upgrade it.
    upgrade: Option<oneshot::Sender<Conn>>,
}

/// Of a request whose head is not understood.
const REFUSED: Asked =
    Asked { version: Version::HTTP_11, is_head: false, trailers: false, keep_alive: false };

/// An answer that is written.
struct Answering {
    sending: Sending<Outgoing>,
    /// A body of which nothing is sent: the visitor is busy with it until the head is written.
    bare: Option<Outgoing>,
    /// Another request may follow.
    keep_alive: bool,
    /// Another protocol follows.
    upgrades: bool,
}

impl Answering {
    fn new(response: Response<Outgoing>, asked: Asked) -> Answering {
        let (parts, body) = response.into_parts();
        let upgrades = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let written = write(&parts, body.size_hint().exact(), asked);
        let mut sending = Sending::new(written.head);
        let mut bare = None;
        match written.has_body {
            true => sending.follow(body, written.chunked, written.trailers),
            false => bare = Some(body),
        }
        Answering { sending, bare, keep_alive: written.keep_alive, upgrades }
    }
}

/// A visitor's connection.
struct Line {
    /// For what is written.
    half: Half,
    reading: Reading,
    /// Of the head that is read.
    seen: Seen,
}

/// Who reads from the connection.
enum Reading {
    /// Its task.
    Here(Connection),
    /// Whoever reads the body of the request.
    Lent(Lent),
    /// Nobody: there is some of a body that nobody wants.
    Left(Connection, Decoder),
    /// Nobody: what came was malformed, or was the end.
    Broken,
}

impl Line {
    /// The next request; `None` when there is none.
    fn poll_request(
        &mut self,
        door: &Arc<Door>,
        settings: &Settings,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Begun>>> {
        self.poll_head(door, settings, cx).map_ok(|head| {
            head.map(|head| match head {
                Ok(head) => self.begin(door, head, settings),
                Err(fault) => {
                    let active = door.activity.request(REFUSED.version);
                    door.activity.left_unread();
                    let visiting = at_once(refuse_unread(door.clone(), active, &fault));
                    Begun { asked: REFUSED, visiting, upgrade: None }
                }
            })
        })
    }

    fn poll_head(
        &mut self,
        door: &Door,
        settings: &Settings,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Result<Head, Fault>>>> {
        let Reading::Here(connection) = &mut self.reading else { return Poll::Ready(Ok(None)) };
        loop {
            match take(&mut connection.input, &mut self.seen, settings) {
                Ok(Some(head)) => return Poll::Ready(Ok(Some(Ok(head)))),
                Err(fault) => return Poll::Ready(Ok(Some(Err(fault)))),
                Ok(None) => {}
            }
            let begun = !connection.input.is_empty();
            if begun {
                // It may have come behind the request before.
                door.activity.bytes_came();
            }
            match connection.poll_read(cx)? {
                Poll::Pending if door.activity.is_leaving() && !begun => {
                    return Poll::Ready(Ok(None));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(0) if begun => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(0) => return Poll::Ready(Ok(None)),
                Poll::Ready(_) => {}
            }
        }
    }

    /// Begins to answer a request.
    fn begin(&mut self, door: &Arc<Door>, head: Head, settings: &Settings) -> Begun {
        let Head { parts, fields, framing, keep_alive, trailers } = head;
        let is_head = parts.method == Method::HEAD;
        let asked = Asked { version: parts.version, is_head, trailers, keep_alive };
        let active = door.activity.request(parts.version);
        let body = match framing {
            Framing::Length(0) => Incoming::Nothing,
            framing => self.lend(framing, settings),
        };
        let (upgrade, waiting) = fields.have(Fields::UPGRADE).then(oneshot::channel).unzip();
        let visiting = visit(door.clone(), active, (parts, fields), body, waiting);
        Begun { asked, visiting, upgrade }
    }

    /// Waits for an answer, unless its visitor leaves before.
    async fn carry(
        &mut self,
        mut visiting: Visiting,
        mut asked: Asked,
        activity: &Activity,
    ) -> io::Result<Answering> {
        poll_fn(|cx| {
            if let Poll::Ready(response) = visiting.as_mut().poll(cx) {
                asked.keep_alive &= !activity.is_leaving();
                return Poll::Ready(Ok(Answering::new(response, asked)));
            }
            self.look(cx)?;
            // It also looks for a visitor whose bytes nobody reads.
            let _ = Pin::new(&mut self.half).poll_flush(cx)?;
            Poll::Pending
        })
        .await
    }

    /// The body of a request, which reads by itself.
    fn lend(&mut self, framing: Framing, settings: &Settings) -> Incoming {
        match std::mem::replace(&mut self.reading, Reading::Broken) {
            Reading::Here(connection) => {
                let max_fields = settings.max_header_fields;
                let (body, lent) = RequestBody::lend(connection, framing, max_fields);
                self.reading = Reading::Lent(lent);
                Incoming::Http1(Box::new(body))
            }
            // A head was read a moment ago.
            other => {
                self.reading = other;
                Incoming::Nothing
            }
        }
    }

    /// Takes the connection back when it is not read elsewhere any more.
    fn poll_back(&mut self, cx: &Context<'_>) -> Poll<()> {
        if let Reading::Lent(lent) = &self.reading {
            self.reading = match ready!(lent.poll_back(cx)) {
                Some((connection, Decoder::Length(0))) => Reading::Here(connection),
                Some((connection, left)) => Reading::Left(connection, left),
                None => Reading::Broken,
            };
        }
        Poll::Ready(())
    }

    /// Looks for the visitor's end, as far as nothing else has come.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.poll_back(cx).is_ready()
            && let Reading::Here(connection) = &mut self.reading
            && connection.input.is_empty()
            && let Poll::Ready(0) = connection.poll_read(cx)?
        {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the visitor left"));
        }
        if !matches!(&self.reading, Reading::Here(connection) if connection.input.is_empty()) {
            self.half.unattended();
        }
        Ok(())
    }

    /// Writes an answer. Whether another request may follow.
    async fn answer(&mut self, answering: &mut Answering) -> io::Result<bool> {
        if let Reading::Lent(lent) = &self.reading {
            lent.answering();
        }
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = answering.sending.poll(&mut self.half, cx) {
                return Poll::Ready(io::Result::Ok(sent));
            }
            self.look(cx)?;
            // As above, unless something waits to be written: then writing tells.
            if answering.sending.is_written() {
                let _ = Pin::new(&mut self.half).poll_flush(cx)?;
            }
            Poll::Pending
        });
        // A cut is seen as one because the connection ends here, without a goodbye.
        let sent = sent.await?.map_err(|fault| io::Error::other(fault.to_string()))?;
        if matches!(sent, Sent::Broken) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        answering.bare = None;
        if !answering.keep_alive {
            return Ok(false);
        }
        poll_fn(|cx| {
            ready!(self.poll_back(cx));
            self.skip(cx);
            Poll::Ready(())
        })
        .await;
        Ok(matches!(self.reading, Reading::Here(_)))
    }

    /// Skips what is left of a request's body, if all of that is there.
    fn skip(&mut self, cx: &mut Context<'_>) {
        let Reading::Left(connection, left) = &mut self.reading else { return };
        let mut may_read = true;
        loop {
            match left.next(&mut connection.input) {
                Ok(Some(Step::End(_))) => break,
                Ok(Some(Step::Data(_))) => {}
                Ok(None) if std::mem::take(&mut may_read) => {
                    if !matches!(connection.poll_read(cx), Poll::Ready(Ok(1..))) {
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
        if let Reading::Left(connection, _) = std::mem::replace(&mut self.reading, Reading::Broken)
        {
            self.reading = Reading::Here(connection);
        }
    }

    /// Writes the answer to a handshake, and gives the connection to whoever goes on with it.
    async fn hand_over(
        mut self,
        mut answering: Answering,
        to: oneshot::Sender<Conn>,
    ) -> io::Result<()> {
        let sent = poll_fn(|cx| answering.sending.poll(&mut self.half, cx)).await;
        drop(answering);
        let Line { half, reading, .. } = self;
        drop(half);
        if let (Ok(Sent::Whole), Reading::Here(connection)) = (sent, reading)
            && let Some(conn) = connection.into_conn()
        {
            // Nobody waits for it only when the exchange is over already.
            let _ = to.send(conn.unwatched());
        }
        Ok(())
    }
}
