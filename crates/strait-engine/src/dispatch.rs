//! The single path of every exchange: limit, route, carry, record.
//!
//! Entries and the accept loops of sessions call the same dispatch; what it calls is a
//! backend or a tunnel. So both directions of both nodes are this one path.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Instant;

use http::{HeaderName, StatusCode};
use strait_wire::{Data, Part, Protocol, Reason, RequestHead};
use tokio::time::{Instant as Timer, Sleep, sleep_until};

use crate::clock::now;
use crate::directory::{Directory, Target};
use crate::flight::{Asked, Counters, Flight, Flights};
use crate::visitors::{Seat, Visitors};
use crate::{
    Answer, Body, BoxBody, Carried, EmptyBody, Exchange, Failure, Fault, Record, Recorder, Upstream,
};

/// Tunnels that a request may pass; one more is taken for a loop.
pub const MAX_HOPS: u32 = 8;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The single path of every exchange of a node.
pub struct Dispatch {
    directory: Arc<Directory>,
    recorder: Arc<dyn Recorder>,
    flights: Arc<Flights>,
    max_exchanges: AtomicUsize,
    visitors: Arc<Visitors>,
}

impl Dispatch {
    /// A dispatch that finds upstreams in `directory`, carries at most `max_exchanges` at
    /// once and tells `recorder` of each.
    pub fn new(
        directory: Arc<Directory>,
        recorder: Arc<dyn Recorder>,
        max_exchanges: usize,
    ) -> Dispatch {
        let max_exchanges = AtomicUsize::new(max_exchanges);
        let (flights, visitors) = (Arc::default(), Visitors::new(None));
        Dispatch { directory, recorder, flights, max_exchanges, visitors }
    }

    /// What is under way.
    pub fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }

    /// Carries at most so many exchanges at once from now on; those under way stay.
    pub fn set_max_exchanges(&self, max_exchanges: usize) {
        self.max_exchanges.store(max_exchanges, Ordering::Relaxed);
    }

    /// Carries at most `most` exchanges at once for one visitor of an entry, by his address;
    /// `None`: as many as all together. Those under way stay.
    pub fn set_visitor_limit(&self, most: Option<usize>) {
        self.visitors.limit(most);
    }

    async fn handle(&self, mut exchange: Exchange) -> Result<Answer, Failure> {
        let admitted = self.admit(&exchange);
        let name =
            admitted.as_ref().map_or_else(|_| Arc::default(), |(t, _)| Arc::clone(&t.service));
        let mut entry = Entry::open(self, &exchange, name);
        let outcome = match admitted {
            Err(fault) => Err(fault.into()),
            Ok((target, seat)) => {
                entry.seat = seat;
                if target.remote {
                    exchange.context.service = Arc::clone(&target.service);
                }
                if !exchange.body.is_end() {
                    let counted =
                        Counted { body: exchange.body, flight: Arc::clone(&entry.record.flight) };
                    exchange.body = Box::new(counted);
                }
                let deadline = exchange.context.deadline;
                within(deadline, target.upstream.carry(exchange)).await
            }
        };
        match outcome {
            Ok(answer) => Ok(entry.answered(answer)),
            Err(failure) => {
                entry.end(Some(failure.fault.clone()));
                Err(failure)
            }
        }
    }

    /// Where the exchange goes, and what it holds of its visitor's share until it ends.
    fn admit(&self, exchange: &Exchange) -> Result<(Target, Option<Box<Seat>>), Fault> {
        let target = self.route(exchange)?;
        let address = exchange.context.caller.address;
        let seat = address.map(|address| self.visitors.seat(address)).transpose()?.flatten();
        Ok((target, seat))
    }

    fn route(&self, exchange: &Exchange) -> Result<Target, Fault> {
        if exchange.context.hops > MAX_HOPS {
            return Err(Fault::new(Reason::Loop));
        }
        if self.flights.count() >= self.max_exchanges.load(Ordering::Relaxed) {
            return Err(Fault::because(Reason::Overloaded, "max_exchanges is reached").retry_safe());
        }
        self.directory.find(exchange).ok_or_else(|| {
            let misdirected = exchange.context.misdirected;
            let reason = if misdirected { Reason::Misdirected } else { Reason::NoRoute };
            Fault::new(reason).retry_safe()
        })
    }
}

impl Upstream for Dispatch {
    fn carry(&self, exchange: Exchange) -> Carried<'_> {
        Box::pin(self.handle(exchange))
    }

    fn refused(&self, exchange: &Exchange, status: StatusCode, fault: &Fault) {
        let mut entry = Entry::open(self, exchange, Arc::default());
        entry.record.status = Some(status.as_u16());
        entry.end(Some(fault.clone()));
    }

    fn serves(&self, protocol: Protocol, head: &RequestHead) -> bool {
        self.directory.serves(protocol, head)
    }
}

/// Carries until the caller's deadline. What was being carried is dropped then, which
/// cancels it everywhere.
async fn within(deadline: Option<Instant>, carried: Carried<'_>) -> Result<Answer, Failure> {
    match deadline {
        None => carried.await,
        Some(at) => tokio::time::timeout_at(Timer::from_std(at), carried)
            .await
            .unwrap_or_else(|_| Err(Fault::new(Reason::Deadline).into())),
    }
}

/// The entry of an exchange in the books, which closes with the answer's body: exactly once, by
/// `Drop` if need be.
struct Entry {
    flights: Arc<Flights>,
    recorder: Arc<dyn Recorder>,
    key: u64,
    seat: Option<Box<Seat>>,
    deadline: Option<Instant>,
    record: Record,
    closed: bool,
    /// The answer's, once there is one.
    body: BoxBody,
    timer: Option<std::pin::Pin<Box<Sleep>>>,
}

impl Entry {
    /// Boxed, because it is handed on until it is the answer's body.
    fn open(dispatch: &Dispatch, exchange: &Exchange, route: Arc<str>) -> Box<Entry> {
        let (head, context) = (&exchange.head, &exchange.context);
        let flight = Arc::new(Flight {
            id: context.id,
            trace: context.trace.clone(),
            protocol: context.protocol,
            caller: context.caller.clone(),
            route,
            method: head.method.clone(),
            asked: Asked::new(head.host(), head.path_only()),
            since: now(),
            counters: Counters::default(),
        });
        dispatch.recorder.started(context.protocol);
        Box::new(Entry {
            key: dispatch.flights.enter(Arc::clone(&flight)),
            flights: Arc::clone(&dispatch.flights),
            recorder: Arc::clone(&dispatch.recorder),
            seat: None,
            deadline: context.deadline,
            closed: false,
            record: Record {
                flight,
                status: None,
                grpc_status: None,
                bytes_in: 0,
                bytes_out: 0,
                messages_in: 0,
                messages_out: 0,
                first_byte: None,
                duration: std::time::Duration::ZERO,
                fault: None,
            },
            body: Box::new(EmptyBody),
            timer: None,
        })
    }

    /// The head has come; the entry stays open with the body.
    fn answered(mut self: Box<Self>, answer: Answer) -> Answer {
        self.record.status = Some(answer.head.status.as_u16());
        self.record.first_byte = Some(self.age());
        self.note_grpc_status(&answer.head.headers);
        if answer.body.is_end() {
            self.end(None);
            return answer;
        }
        self.timer = self.deadline.map(|at| Box::pin(sleep_until(Timer::from_std(at))));
        self.body = answer.body;
        Answer { head: answer.head, body: self }
    }

    fn age(&self) -> std::time::Duration {
        now().saturating_duration_since(self.record.flight.since)
    }

    fn note_grpc_status(&mut self, headers: &http::HeaderMap) {
        if self.record.flight.protocol == Protocol::Grpc
            && let Some(status) = headers.get(GRPC_STATUS).and_then(|v| v.to_str().ok())
        {
            self.record.grpc_status = status.parse().ok();
        }
    }

    fn end(&mut self, fault: Option<Fault>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let counters = &self.record.flight.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        self.record.bytes_in = read(&counters.bytes_in);
        self.record.bytes_out = read(&counters.bytes_out);
        self.record.messages_in = read(&counters.messages_in);
        self.record.messages_out = read(&counters.messages_out);
        self.record.duration = self.age();
        if let Some(fault) = &fault {
            fault.log(&self.record.flight.id);
            let face = fault.face();
            self.record.status.get_or_insert(face.http);
            if self.record.flight.protocol == Protocol::Grpc {
                self.record.grpc_status = Some(u32::from(face.grpc));
            }
        }
        self.record.fault = fault;
        self.flights.leave(self.key);
        self.seat = None;
        self.recorder.finished(&self.record);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end(Some(Fault::new(Reason::Cancelled)));
    }
}

/// Adds one piece to the counters of its direction.
fn count(
    bytes: &std::sync::atomic::AtomicU64,
    messages: &std::sync::atomic::AtomicU64,
    data: &Data,
) {
    bytes.fetch_add(data.bytes.len() as u64, Ordering::Relaxed);
    if data.ends_message {
        messages.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request's body that counts what passes.
struct Counted {
    body: BoxBody,
    flight: Arc<Flight>,
}

impl Body for Counted {
    fn poll_part(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let part = ready!(self.body.poll_part(cx));
        if let Some(Ok(Part::Data(data))) = &part {
            count(&self.flight.counters.bytes_in, &self.flight.counters.messages_in, data);
        }
        Poll::Ready(part)
    }

    fn is_end(&self) -> bool {
        self.body.is_end()
    }

    fn size(&self) -> Option<u64> {
        self.body.size()
    }

    fn at_most(&mut self, bytes: usize) {
        self.body.at_most(bytes);
    }
}

/// An answer's body that keeps the books and the caller's deadline.
impl Body for Entry {
    fn poll_part(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Part, Fault>>> {
        // First, so that an answer which never pauses does not outlive it either.
        let over = self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        let part = match over {
            true => Some(Err(Fault::new(Reason::Deadline))),
            false => ready!(self.body.poll_part(cx)),
        };
        match &part {
            Some(Ok(Part::Data(data))) => {
                let counters = &self.record.flight.counters;
                count(&counters.bytes_out, &counters.messages_out, data);
                if self.body.is_end() {
                    self.end(None);
                }
            }
            Some(Ok(Part::Trailers(map))) => {
                self.note_grpc_status(map);
                self.end(None);
            }
            Some(Err(fault)) => self.end(Some(fault.clone())),
            None => self.end(None),
        }
        Poll::Ready(part)
    }

    fn is_end(&self) -> bool {
        self.body.is_end()
    }

    fn size(&self) -> Option<u64> {
        self.body.size()
    }

    fn at_most(&mut self, bytes: usize) {
        self.body.at_most(bytes);
    }

    fn give_up(&mut self, fault: &Fault) {
        self.end(Some(fault.clone()));
    }
}
