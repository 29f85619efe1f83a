//! Carrying a plain request to a service, and its answer back.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::header::EXPECT;
use http::{HeaderMap, HeaderValue, Method};
use strait_engine::{Answer, BoxBody, EmptyBody, Exchange, Failure, Fault, Reason, RequestHead};
use tokio::time::Instant;

use crate::backend::Backend;
use crate::http::body::Plain;
use crate::http::upload::Upload;
use crate::http1::answer::read::{Head, Heads, Heard};
use crate::http1::body::{Held, Rest, body, broken};
use crate::http1::connection::Connection;
use crate::http1::head::announced_trailers;
use crate::http1::request::write::write;
use crate::http1::sending::{Sending, Sent};
use crate::pool::{Choice, Http1 as Lease};
use crate::settings::{Settings, or_never};

/// Carries a plain request by HTTP/1.1.
pub(crate) async fn carry(backend: &Backend, exchange: Exchange) -> Result<Answer, Failure> {
    let Exchange { head, context, body } = exchange;
    let (pool, settings) = (backend.pool(), backend.pool().settings());
    let limit = settings.answer_head;
    let mut asking = Asking::compose(backend, &head, body, context.awaits_continue)?;
    let mut choice = if asking.is_replayable() { Choice::Kept } else { Choice::Looked };
    loop {
        let fault = match pool.http1(choice).await {
            Ok(mut lease) => match asking.hear(&mut lease.connection, settings, limit).await {
                Ok(answer) => return asking.answered(backend, lease, answer),
                // A connection that was used before may have been closed unseen. What was not
                // written can go again, and so can what is safe to do twice (RFC 9110 9.2.1).
                Err(Unheard::Broken(_)) if lease.reused && asking.may_go_again() => {
                    if asking.sending.has_begun() {
                        asking = Asking::compose(backend, &head, Box::new(EmptyBody), false)?;
                    }
                    (asking.sent, choice) = (None, Choice::Fresh);
                    continue;
                }
                Err(Unheard::Broken(fault)) if !asking.sending.has_begun() => fault.retry_safe(),
                Err(Unheard::Broken(fault) | Unheard::Over(fault)) => return Err(fault.into()),
            },
            Err(fault) => fault,
        };
        let untouched = asking.sending.into_body();
        let untouched = untouched.map(|body| Box::new(Exchange { head, context, body }));
        return Err(Failure { fault, untouched });
    }
}

/// Why there is no head of an answer.
pub(crate) enum Unheard {
    /// The connection broke, or what it brought is no answer.
    Broken(Fault),
    /// Our own body was cut, or time is over.
    Over(Fault),
}

impl Unheard {
    pub(crate) fn fault(self) -> Fault {
        let (Unheard::Broken(fault) | Unheard::Over(fault)) = self;
        fault
    }
}

/// A request that is sent while its answer is waited for.
pub(crate) struct Asking {
    method: Method,
    sending: Sending<Plain>,
    sent: Option<Sent>,
    /// What is known of the body, if there is one.
    upload: Option<Arc<Upload>>,
    awaits_continue: bool,
}

impl Asking {
    /// A request with this head and body.
    fn compose(
        backend: &Backend,
        head: &RequestHead,
        body: BoxBody,
        awaits_continue: bool,
    ) -> Result<Asking, Fault> {
        let has_body = !body.is_end();
        let awaits_continue = awaits_continue && has_body;
        let mut more = HeaderMap::new();
        if awaits_continue {
            more.insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        let (written, framed) = write(backend, head, has_body, &more)?;
        let mut asking = Asking::bodiless(head.method.clone(), written);
        if has_body {
            let upload = Arc::<Upload>::default();
            let wait = awaits_continue.then_some(backend.pool().settings().continue_wait);
            let plain = Plain::request(body, framed.length, upload.clone());
            let trailers = announced_trailers(&head.headers);
            let plain = plain.awaiting_continue(wait);
            asking.sending.follow(plain, framed.chunked, trailers);
            (asking.upload, asking.awaits_continue) = (Some(upload), awaits_continue);
        }
        Ok(asking)
    }

    /// A request whose head is `written`, without a body.
    pub(crate) fn bodiless(method: Method, written: BytesMut) -> Asking {
        let sending = Sending::new(written);
        Asking { method, sending, sent: None, upload: None, awaits_continue: false }
    }

    /// Whether it may be sent twice.
    fn is_replayable(&self) -> bool {
        self.upload.is_none() && self.method.is_safe()
    }

    /// Whether it may be sent once more.
    fn may_go_again(&self) -> bool {
        !self.sending.has_begun() || self.is_replayable()
    }

    /// Sends it and waits for the head of its answer, for `limit` from the last progress of the
    /// upload.
    pub(crate) async fn hear(
        &mut self,
        connection: &mut Connection,
        settings: &Settings,
        limit: Duration,
    ) -> Result<Head, Unheard> {
        let mut heads = Heads::new();
        let (mut until, mut pieces) = (None, 0);
        poll_fn(|cx| {
            if let Poll::Ready(heard) = self.poll(connection, &mut heads, settings, cx) {
                return Poll::Ready(heard);
            }
            let now_sent = self.upload.as_ref().map_or(0, |upload| upload.pieces());
            loop {
                let at = *until.get_or_insert_with(|| Instant::now() + or_never(limit));
                if connection.poll_until(at, cx).is_pending() {
                    return Poll::Pending;
                }
                if std::mem::replace(&mut pieces, now_sent) == now_sent {
                    let detail = format!("no answer within {limit:?}");
                    let fault = Fault::because(Reason::BackendTimeout, detail);
                    return Poll::Ready(Err(Unheard::Over(fault)));
                }
                until = None;
            }
        })
        .await
    }

    /// Writes and reads on. Neither waits for the other.
    fn poll(
        &mut self,
        connection: &mut Connection,
        heads: &mut Heads,
        settings: &Settings,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, Unheard>> {
        if self.sent.is_none()
            && let Poll::Ready(sent) = self.sending.poll(connection.half(), cx)
        {
            self.sent = Some(sent.map_err(Unheard::Over)?);
        }
        let closed = |what| Unheard::Broken(Fault::because(Reason::BackendReset, what));
        if matches!(self.sent, Some(Sent::Broken)) && !self.sending.has_begun() {
            return Poll::Ready(Err(closed(
                "the service closed the connection before the request",
            )));
        }
        loop {
            match heads.next(&mut connection.input, &self.method, settings) {
                Ok(Heard::Head(head)) => return Poll::Ready(Ok(head)),
                Ok(Heard::Continue) => {
                    if let Some(upload) = &self.upload {
                        upload.proceed();
                    }
                    continue;
                }
                Ok(Heard::Part) => {}
                Err(fault) => return Poll::Ready(Err(Unheard::Broken(fault))),
            }
            match connection.poll_read(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) if heads.is_silent() => {
                    return Poll::Ready(Err(closed("the service closed without an answer")));
                }
                Poll::Ready(Ok(0)) => {
                    let what = "the service closed within the head of its answer";
                    return Poll::Ready(Err(closed(what)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Unheard::Broken(broken(&error))));
                }
            }
        }
    }

    /// The answer with this head, whose body comes by the same connection.
    pub(crate) fn answered(
        self,
        backend: &Backend,
        mut lease: Lease,
        answer: Head,
    ) -> Result<Answer, Failure> {
        let Head { status, headers, framing, keep_alive } = answer;
        let head = backend.answered(status, headers)?;
        let keep = keep_alive && !matches!(self.sent, Some(Sent::Broken));
        let rest = self.upload.filter(|_| self.sent.is_none()).map(|upload| {
            // A service that answers with success may still read what it was offered.
            if self.awaits_continue && !status.is_success() {
                upload.refuse();
            }
            Rest::start(self.sending, &mut lease, upload)
        });
        let max_fields = backend.pool().settings().max_header_fields;
        let body = body(framing, max_fields, Held { lease, keep, rest });
        Ok(Answer { head, body })
    }
}
