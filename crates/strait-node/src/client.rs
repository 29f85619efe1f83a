//! A client's side of the tunnel: dialling, for ever.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use strait_engine::{Ending, Session};
use strait_wire::{Reason, Side};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::ServerUrl;
use crate::hub::Hub;
use crate::link::dial::{DialError, Dialer};
use crate::reconnect::{Backoff, Obstacle};

/// A tunnel that lived this long was a working one.
const PROVEN: Duration = Duration::from_secs(1);

/// The authenticated name of the peer: whoever holds the server's certificate.
const SERVER: &str = "server";

/// Keeps one tunnel to the server alive.
pub(crate) struct Client {
    hub: Arc<Hub>,
    dialer: ArcSwap<Dialer>,
    /// Another server, or other credentials: what stands is given up for what can be had now.
    redial: Notify,
    once: bool,
}

/// How an attempt ended.
enum Attempt {
    /// The node stops.
    Stopped,
    /// It has to be made anew, at once.
    Again,
    Failed(DialError),
}

impl Client {
    /// A client that dials as `dialer` says; `once`: the first failure ends it.
    pub(crate) fn new(hub: Arc<Hub>, dialer: Arc<Dialer>, once: bool) -> Client {
        Client { hub, dialer: ArcSwap::new(dialer), redial: Notify::new(), once }
    }

    /// Dials in another way from now on. With `redial` at once, and the tunnel that stands is
    /// retired.
    pub(crate) fn replace(&self, dialer: Arc<Dialer>, redial: bool) {
        self.dialer.store(dialer);
        if redial {
            self.redial.notify_one();
        }
    }

    /// Dials until `stop`.
    ///
    /// # Errors
    /// With `once`: what the first attempt failed at.
    pub(crate) async fn run(&self, stop: CancellationToken) -> Result<(), String> {
        let mut backoff = Backoff::default();
        let mut said = String::new();
        loop {
            let began = Instant::now();
            let failure = match self.attempt(&stop).await {
                Attempt::Stopped => return Ok(()),
                Attempt::Failed(failure) => failure,
                Attempt::Again => {
                    backoff.reset();
                    said.clear();
                    continue;
                }
            };
            if began.elapsed() >= PROVEN {
                backoff.reset();
                said.clear();
            }
            let text = failure.to_string();
            if self.once {
                return Err(text);
            }
            let obstacle = match failure {
                DialError::Away(_) => Obstacle::Away,
                DialError::Unwanted(_) => Obstacle::Unwanted,
                DialError::Other(_) => Obstacle::Other,
            };
            let pause = backoff.pause(obstacle, getrandom::u64().unwrap_or(u64::MAX / 2));
            // The same trouble is told once, not at every attempt.
            if said != text {
                tracing::warn!("{text}; trying again");
                said = text;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.redial.notified() => said.clear(),
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// One tunnel from beginning to end.
    async fn attempt(&self, stop: &CancellationToken) -> Attempt {
        let dialer = self.dialer.load_full();
        let session = self.hub.open(SERVER, Side::Dialer, dialer.server.authority());
        let dialled = tokio::select! {
            dialled = dialer.dial(&session) => dialled,
            () = stop.cancelled() => {
                self.hub.discard(&session);
                return Attempt::Stopped;
            }
        };
        match dialled {
            Err(error) => {
                self.hub.discard(&session);
                Attempt::Failed(error)
            }
            Ok(incoming) => self.live(session, incoming, &dialer.server, stop).await,
        }
    }

    async fn live(
        &self,
        session: Session,
        incoming: crate::link::Received,
        server: &ServerUrl,
        stop: &CancellationToken,
    ) -> Attempt {
        self.hub.tunnels.fetch_add(1, Ordering::Relaxed);
        let (hub, live) = (Arc::clone(&self.hub), session.clone());
        // In a task of its own: a draining node still runs it after dialling has stopped.
        let run = self
            .hub
            .links
            .spawn(async move { hub.run(session, incoming, Box::new(|_| true)).await });
        let ended = tokio::select! {
            ended = run => ended,
            () = self.redial.notified() => {
                self.hub.retire(&live);
                return Attempt::Again;
            }
        };
        if stop.is_cancelled() {
            return Attempt::Stopped;
        }
        let ending = ended.unwrap_or_else(|error| Ending::Lost(error.to_string()));
        Attempt::Failed(match ending {
            Ending::Goodbye(Some(goaway)) if goaway.reason == Reason::ClientLimit => {
                DialError::Unwanted(format!(
                    "{server}: another client with the id {} took over; give each its own with --id",
                    self.hub.name
                ))
            }
            Ending::Goodbye(Some(goaway)) if !goaway.message.is_empty() => DialError::Other(
                format!("{server}: the server ended the tunnel: {}", goaway.message),
            ),
            Ending::Goodbye(_) => DialError::Away(format!("{server}: the server went away")),
            Ending::Lost(why) => DialError::Away(format!("{server}: the tunnel was lost: {why}")),
            Ending::Refused(why) => {
                DialError::Other(format!("{server}: the tunnel was ended: {why}"))
            }
        })
    }
}
