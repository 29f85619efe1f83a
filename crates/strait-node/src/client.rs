//! A client's side of the tunnel: dialling, for ever.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use strait_engine::{Ending, Session};
use strait_wire::{Reason, Side};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::link::dial::{DialError, Dialer};
use crate::reconnect::{Backoff, Obstacle};

/// A tunnel that lived this long was a working one.
const PROVEN: Duration = Duration::from_secs(1);

/// The authenticated name of the peer: whoever holds the server's certificate.
const SERVER: &str = "server";

/// Keeps one tunnel to the server alive.
pub(crate) struct Client {
    pub(crate) hub: Arc<Hub>,
    pub(crate) dialer: Dialer,
    pub(crate) once: bool,
}

impl Client {
    /// Dials until `stop`. With `once` the first failure ends it.
    ///
    /// # Errors
    /// With `once`: what the first attempt failed at.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), String> {
        let mut backoff = Backoff::default();
        let mut said = String::new();
        loop {
            let began = Instant::now();
            let failure = match self.attempt(&stop).await {
                None => return Ok(()),
                Some(failure) => failure,
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
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// One tunnel from beginning to end; `None` once the node is stopping.
    async fn attempt(&self, stop: &CancellationToken) -> Option<DialError> {
        let session = self.hub.open(SERVER, Side::Dialer, self.dialer.server.authority());
        let dialled = tokio::select! {
            dialled = self.dialer.dial(&session) => dialled,
            () = stop.cancelled() => {
                self.hub.discard(&session);
                return None;
            }
        };
        match dialled {
            Err(error) => {
                self.hub.discard(&session);
                Some(error)
            }
            Ok(incoming) => self.live(session, incoming, stop).await,
        }
    }

    async fn live(
        &self,
        session: Session,
        incoming: crate::link::Received,
        stop: &CancellationToken,
    ) -> Option<DialError> {
        self.hub.tunnels.fetch_add(1, Ordering::Relaxed);
        let hub = Arc::clone(&self.hub);
        // In a task of its own: a draining node still runs it after dialling has stopped.
        let run = self
            .hub
            .links
            .spawn(async move { hub.run(session, incoming, Box::new(|_| true)).await });
        let ending = run.await.unwrap_or_else(|error| Ending::Lost(error.to_string()));
        if stop.is_cancelled() {
            return None;
        }
        let server = &self.dialer.server;
        Some(match ending {
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
