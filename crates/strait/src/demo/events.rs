//! Answers that do not end: server-sent events of the sample backend.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::caller::Caller;
use super::load::{DOWNLOADS, Load, STALLED};
use super::sampler::{WatchRequest, micros};
use super::site::{Body, text};

/// Events that may wait for a slow reader before their maker waits too.
const WAITING: usize = 4;

/// Where an endless answer writes to.
struct Events(Sender<Bytes, Infallible>);

impl Events {
    /// Sends one event; false when the reader has gone.
    async fn send(&mut self, event: &Value) -> bool {
        self.0.send_data(Bytes::from(format!("data: {event}\n\n"))).await.is_ok()
    }
}

fn open() -> (Events, Response<Body>) {
    let (sender, body) = Channel::new(WAITING);
    let mut response = text(StatusCode::OK, "");
    *response.body_mut() = body.boxed_unsync();
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    (Events(sender), response)
}

/// The time, ten times a second.
pub(crate) fn clock() -> Response<Body> {
    let (mut events, response) = open();
    tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 1_u64.. {
            ticks.tick().await;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let event = json!({ "n": n, "unix_ms": now.as_millis() as u64, "at_us": micros() });
            if !events.send(&event).await {
                return;
            }
        }
    });
    response
}

/// What the sample gRPC service streams, fetched through the tunnel: for each reading of
/// one long `Watch` also the round trip of one short `Echo` beside it.
pub(crate) async fn readings(entry: std::net::SocketAddr) -> Response<Body> {
    let caller = Caller::connect(entry).await;
    let Ok(mut caller) = caller else {
        return text(StatusCode::BAD_GATEWAY, "The sample gRPC service cannot be reached.\n");
    };
    let watch = match caller.watch(WatchRequest { interval_ms: 200, count: 0 }).await {
        Ok(watch) => watch,
        Err(status) => return text(StatusCode::BAD_GATEWAY, &format!("gRPC: {status}\n")),
    };
    let (mut events, response) = open();
    tokio::spawn(async move {
        let mut watch = watch;
        while let Ok(Some(reading)) = watch.message().await {
            let watch_us = micros().saturating_sub(reading.at_us);
            let Ok(echo) = caller.echo(&format!("note {}", reading.sequence)).await else { return };
            let event = json!({
                "n": reading.sequence,
                "resident_bytes": reading.resident_bytes,
                "watch_us": watch_us,
                "echo_us": echo.as_micros() as u64,
            });
            if !events.send(&event).await {
                return;
            }
        }
    });
    response
}

/// Holds `load` for as long as somebody reads, and tells how it goes.
pub(crate) fn progress(load: Arc<Load>) -> Response<Body> {
    let (mut events, response) = open();
    tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(250));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let event = json!({
                "bytes": load.bytes(),
                "seconds": load.age().as_secs_f64(),
                "downloads": DOWNLOADS,
                "stalled": STALLED,
            });
            if !events.send(&event).await {
                return;
            }
        }
    });
    response
}
