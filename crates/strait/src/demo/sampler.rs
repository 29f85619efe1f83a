//! The sample gRPC service, `strait.demo.v1.Sampler`: one call of each kind that the
//! page or a curious person needs. Its contract is `page/sampler.proto`.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::body::Body;
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

/// The full names of the calls.
pub(crate) const ECHO: &str = "/strait.demo.v1.Sampler/Echo";
/// See [`ECHO`].
pub(crate) const WATCH: &str = "/strait.demo.v1.Sampler/Watch";
/// See [`ECHO`].
pub(crate) const CHAT: &str = "/strait.demo.v1.Sampler/Chat";

/// A text on its way.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Note {
    /// Anything.
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    /// Set by `Chat`: 1 for the first note of the call.
    #[prost(uint64, tag = "2")]
    pub(crate) sequence: u64,
}

/// What `Watch` is asked for.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct WatchRequest {
    /// Milliseconds between two readings; 0 means 200.
    #[prost(uint32, tag = "1")]
    pub(crate) interval_ms: u32,
    /// Readings after which the call ends; 0 means never.
    #[prost(uint64, tag = "2")]
    pub(crate) count: u64,
}

/// One measurement.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Reading {
    /// Counts from 1, without a gap.
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    /// Microseconds since the demo started: see [`micros`].
    #[prost(uint64, tag = "2")]
    pub(crate) at_us: u64,
    /// Memory of this process in bytes; 0 where the system does not tell.
    #[prost(uint64, tag = "3")]
    pub(crate) resident_bytes: u64,
}

/// Microseconds of the demo's one clock. Sender and receiver of a reading are in one
/// process, so that the time on the way can be told without comparing two clocks.
pub(crate) fn micros() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGAN.elapsed().as_micros() as u64
}

/// Memory that this process holds, in bytes; 0 where /proc does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Answers one gRPC request.
pub(crate) async fn answer(
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        ECHO => notes().unary(Echo, request).await,
        WATCH => {
            let codec = ProstCodec::<Reading, WatchRequest>::default();
            Grpc::new(codec).server_streaming(Watch, request).await
        }
        CHAT => notes().streaming(Chat, request).await,
        _ => Status::unimplemented("the sample service knows Echo, Watch and Chat").into_http(),
    })
}

fn notes() -> Grpc<ProstCodec<Note, Note>> {
    Grpc::new(ProstCodec::default())
}

struct Echo;

impl UnaryService<Note> for Echo {
    type Response = Note;
    type Future = Ready<Result<tonic::Response<Note>, Status>>;

    fn call(&mut self, request: tonic::Request<Note>) -> Self::Future {
        ready(Ok(tonic::Response::new(request.into_inner())))
    }
}

struct Watch;

impl ServerStreamingService<WatchRequest> for Watch {
    type Response = Reading;
    type ResponseStream = Readings;
    type Future = Ready<Result<tonic::Response<Readings>, Status>>;

    fn call(&mut self, request: tonic::Request<WatchRequest>) -> Self::Future {
        ready(Ok(tonic::Response::new(Readings::new(request.into_inner()))))
    }
}

/// The readings of one `Watch`, taken when they are due and somebody asks.
struct Readings {
    ticks: Interval,
    taken: u64,
    count: u64,
}

impl Readings {
    fn new(asked: WatchRequest) -> Readings {
        let every = if asked.interval_ms == 0 { 200 } else { asked.interval_ms.clamp(10, 60_000) };
        let mut ticks = interval(Duration::from_millis(every.into()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Readings { ticks, taken: 0, count: asked.count }
    }
}

impl Stream for Readings {
    type Item = Result<Reading, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.count != 0 && self.taken == self.count {
            return Poll::Ready(None);
        }
        if self.ticks.poll_tick(cx).is_pending() {
            return Poll::Pending;
        }
        self.taken += 1;
        let resident_bytes = resident_bytes();
        Poll::Ready(Some(Ok(Reading { sequence: self.taken, at_us: micros(), resident_bytes })))
    }
}

struct Chat;

impl StreamingService<Note> for Chat {
    type Response = Note;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Note>>) -> Self::Future {
        let mut sequence = 0;
        let counted = request.into_inner().map(move |note| {
            sequence += 1;
            note.map(|note| Note { text: note.text, sequence })
        });
        ready(Ok(tonic::Response::new(Box::pin(counted))))
    }
}
