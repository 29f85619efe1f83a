//! Exchanges over a tunnel: carrying ours there, and answering the peer's.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use strait_mux::Refused;
use strait_wire::{Opening, Part, Reason, StreamNo};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::clock::now;
use crate::pump::pump;
use crate::queue::{AGAIN, Place};
use crate::session::Accepted;
use crate::stream::{StreamReader, StreamWriter};
use crate::{
    Answer, BoxBody, Caller, Carried, Context, EmptyBody, Exchange, Failure, Fault, Origin,
    RequestHead, Session, Upstream,
};

impl Upstream for Session {
    fn carry(&self, exchange: Exchange) -> Carried<'_> {
        Box::pin(carry(self, exchange, Duration::ZERO))
    }
}

/// Carries `exchange` over `session`, for room on which it waits so long, if need be.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn carry(
    session: &Session,
    exchange: Exchange,
    wait: Duration,
) -> Result<Answer, Failure> {
    let (protocol, end) = (exchange.context.protocol, exchange.body.is_end());
    let opening = || opening(&exchange.head, &exchange.context);
    let waits = match session.with(|core| core.open_at_once(opening, protocol, end)) {
        Ok(no) => match ask(session, exchange, no).await {
            Err(Unanswered::NoRoom(waits)) => waits,
            Err(Unanswered::Failed(failure)) => return Err(failure),
            Ok(answer) => return Ok(answer),
        },
        Err(refused @ (Refused::NoBudget | Refused::TooMany)) if !wait.is_zero() => {
            let place = Place::last(session);
            Waits { exchange: Box::new(exchange), place, full: Full::Here(refused) }
        }
        Err(refused) => return Err(failure(Full::Here(refused), session, Box::new(exchange))),
    };
    if wait.is_zero() {
        return Err(failure(waits.full, session, waits.exchange));
    }
    // Boxed, because few wait and all would carry it with them.
    Box::pin(waits.carry(session, wait)).await
}

/// Who has no room for a request.
enum Full {
    Here(Refused),
    There(Fault),
}

/// That nobody has room for `exchange`, of which nothing is used up.
fn failure(full: Full, session: &Session, exchange: Box<Exchange>) -> Failure {
    let fault = match full {
        Full::There(fault) => fault,
        Full::Here(refused) => {
            session.with(|core| core.mux.give_up(refused));
            refusal(refused)
        }
    };
    Failure { fault, untouched: Some(exchange) }
}

/// An exchange that waits for room.
struct Waits {
    exchange: Box<Exchange>,
    place: Place,
    full: Full,
}

impl Waits {
    async fn carry(mut self, session: &Session, wait: Duration) -> Result<Answer, Failure> {
        let until = Instant::now() + wait;
        let mut again = Instant::now() + AGAIN;
        loop {
            let Waits { exchange, place, full } = self;
            let (protocol, end) = (exchange.context.protocol, exchange.body.is_end());
            let (head, context) = (&exchange.head, &exchange.context);
            let open = poll_fn(|cx| place.poll_open(cx, || opening(head, context), protocol, end));
            let no = match timeout_at(again.min(until), open).await {
                Ok(Ok(no)) => no,
                Ok(Err(refused)) => return Err(failure(Full::Here(refused), session, exchange)),
                Err(_) => {
                    let now = Instant::now();
                    if now >= until {
                        return Err(failure(full, session, exchange));
                    }
                    place.allow(now);
                    again = now + AGAIN;
                    self = Waits { exchange, place, full };
                    continue;
                }
            };
            match ask(session, *exchange, no).await {
                Err(Unanswered::NoRoom(waits)) => self = waits,
                Err(Unanswered::Failed(failure)) => return Err(failure),
                Ok(answer) => return Ok(answer),
            }
        }
    }
}

/// Why there is no answer.
enum Unanswered {
    Failed(Failure),
    /// The peer has no room for it, and nothing of it is used up.
    NoRoom(Waits),
}

/// Carries `exchange` as request `no`, which is open.
async fn ask(session: &Session, exchange: Exchange, no: StreamNo) -> Result<Answer, Unanswered> {
    let Exchange { head, context, body } = exchange;
    let bodiless = body.is_end();
    let mut reader = StreamReader::new(session.clone(), no);
    // A body that nobody has asked for yet: nothing of it is used up.
    let mut unasked = None;
    if !bodiless {
        let writer = StreamWriter::new(session.clone(), no);
        if context.awaits_continue {
            unasked = Some((body, writer));
        } else {
            start(body, writer);
        }
    }
    let answered = poll_fn(|cx| {
        let mut asked = |(_, writer): &mut (_, StreamWriter)| {
            matches!(writer.poll_room(cx), Poll::Ready(Ok(_)))
        };
        if let Some((body, writer)) = unasked.take_if(&mut asked) {
            start(body, writer);
        }
        reader.poll_head(cx)
    });
    let fault = match answered.await {
        Ok(head) => {
            if let Some((body, writer)) = unasked {
                start(body, writer);
            }
            let size = content_length(&head.headers);
            return Ok(Answer { head, body: Box::new(reader.with_size(size)) });
        }
        Err(fault) => fault,
    };
    let (body, writer): (BoxBody, _) = match unasked {
        Some((body, writer)) => (body, Some(writer)),
        None if bodiless => (Box::new(EmptyBody), None),
        None => return Err(Unanswered::Failed(fault.into())),
    };
    let exchange = Box::new(Exchange { head, context, body });
    if fault.reason == Reason::Overloaded && fault.retry_safe {
        let place = Place::again(reader, writer);
        return Err(Unanswered::NoRoom(Waits { exchange, place, full: Full::There(fault) }));
    }
    Err(Unanswered::Failed(Failure { fault, untouched: Some(exchange) }))
}

/// Starts the pump of a request's body. It ends by itself: with the body, or when the request is
/// cut. A body that is short is most often all here with its head: it travels with it, without a
/// task.
fn start(body: BoxBody, writer: StreamWriter) {
    let mut pump = Box::pin(pump(body, writer));
    // Nobody need be woken: if there is more to come, the task asks again.
    if pump.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending() {
        tokio::spawn(pump);
    }
}

fn refusal(refused: Refused) -> Fault {
    match refused {
        Refused::NotReady => Fault::because(Reason::ClientOffline, "the tunnel is being set up"),
        Refused::Leaving => Fault::because(Reason::Draining, "the tunnel is being drained"),
        Refused::TooMany => {
            Fault::because(Reason::Overloaded, "the tunnel has as many requests as its peer allows")
        }
        Refused::NoBudget => {
            Fault::because(Reason::Overloaded, "the tunnel's memory budget is used up")
        }
    }
    .retry_safe()
}

fn opening(head: &Arc<RequestHead>, context: &Context) -> Opening {
    Opening {
        id: Some(context.id),
        client_id: String::new(),
        trace: context.trace.clone(),
        deadline: context.deadline.map(|at| at.saturating_duration_since(now())),
        hops: context.hops + 1,
        urgency: context.urgency,
        service: context.service.clone(),
        answer_credit: 0,
        awaits_continue: context.awaits_continue,
        head: Arc::clone(head),
    }
}

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Answers what the peer opens, with `upstream`, until the session ends. Each exchange has
/// a task of its own, counted by `tasks`.
pub async fn serve(session: Session, upstream: Arc<dyn Upstream>, tasks: TaskTracker) {
    while let Some(accepted) = session.accept().await {
        let writer = StreamWriter::new(session.clone(), accepted.no);
        let exchange = exchange(&session, accepted);
        // Boxed, because a task's future is moved eight times from its birth to its end.
        tasks.spawn(Box::pin(answer(exchange, writer, Arc::clone(&upstream))));
    }
}

fn exchange(session: &Session, accepted: Accepted) -> Exchange {
    let Accepted { no, protocol, opening, bodiless } = accepted;
    let body: BoxBody = if bodiless {
        Box::new(EmptyBody)
    } else {
        let size = content_length(&opening.head.headers);
        Box::new(StreamReader::new(session.clone(), no).with_size(size))
    };
    // A deadline centuries away is none.
    let deadline = opening.deadline.filter(|left| *left < Duration::from_secs(1 << 32));
    let opening = *opening;
    let context = Box::new(Context {
        protocol,
        id: opening.id.unwrap_or_default(),
        trace: opening.trace,
        deadline: deadline.map(|left| now() + left),
        hops: opening.hops,
        urgency: opening.urgency,
        service: opening.service,
        awaits_continue: opening.awaits_continue,
        misdirected: false,
        caller: Caller {
            origin: Origin::Session(Arc::clone(session.name())),
            address: None,
            version: None,
        },
    });
    Exchange { head: opening.head, context, body }
}

/// Carries one exchange of the peer and sends its answer back. When the peer cancels,
/// everything here is dropped, which cancels it further on.
async fn answer(exchange: Exchange, mut writer: StreamWriter, upstream: Arc<dyn Upstream>) {
    let outcome = {
        let mut carried = pin!(upstream.carry(exchange));
        // What was cancelled before it began never reaches a backend.
        poll_fn(|cx| match writer.poll_gone(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => carried.as_mut().poll(cx).map(Some),
        })
        .await
    };
    match outcome {
        None => {}
        Some(Ok(answer)) => {
            let mut body = answer.body;
            let (first, end) = peek(&mut body).await;
            let sent = match first {
                Err(fault) => {
                    writer.abort(&fault);
                    return;
                }
                Ok(first) => writer.respond(answer.head, first, end),
            };
            if sent.is_ok() && !end {
                // The fault is recorded by the dispatch that carried the exchange.
                let _ = pump(body, writer).await;
            }
        }
        Some(Err(failure)) => writer.abort(&failure.fault),
    }
}

/// The first part of `body` if it is there already, and whether the body ends with it: a
/// small answer travels as one message.
async fn peek(body: &mut BoxBody) -> (Result<Option<Part>, Fault>, bool) {
    poll_fn(|cx: &mut TaskContext<'_>| {
        if body.is_end() {
            return Poll::Ready((Ok(None), true));
        }
        Poll::Ready(match body.poll_part(cx) {
            Poll::Pending => (Ok(None), false),
            Poll::Ready(None) => (Ok(None), true),
            Poll::Ready(Some(Err(fault))) => (Err(fault), true),
            Poll::Ready(Some(Ok(part))) => {
                let end = body.is_end() || matches!(part, Part::Trailers(_));
                (Ok(Some(part)), end)
            }
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn tasks_are_small() {
        // Each request has them for as long as it is open: growth shall be noticed.
        let answer = size(|(exchange, writer, upstream)| answer(exchange, writer, upstream));
        let pump = size(|(body, writer)| pump(body, writer));
        println!("bytes of a task: an exchange of the peer {answer}, a pump {pump}");
        assert!(answer <= 800, "{answer}");
        assert!(pump <= 112, "{pump}");
    }
}
