//! A client's side of its tunnels: dialling, for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use strait_engine::{Ending, Session};
use strait_wire::{Reason, Side};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::ServerUrl;
use crate::hub::Hub;
use crate::link::dial::{DialError, Dialer};
use crate::reconnect::{Backoff, Obstacle};

/// A tunnel that lived this long was a working one.
const PROVEN: Duration = Duration::from_secs(1);

/// The authenticated name of the peer: whoever holds the server's certificate.
const SERVER: &str = "server";

/// Keeps the tunnels to the server alive.
pub(crate) struct Client {
    hub: Arc<Hub>,
    dialer: ArcSwap<Dialer>,
    tunnels: Vec<Tunnel>,
    once: bool,
}

/// One of the tunnels.
struct Tunnel {
    number: u32,
    /// Another server, or other credentials: what stands is given up for what can be had now.
    redial: Notify,
    /// Whether it was up at any time.
    was_up: AtomicBool,
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
    /// A client that dials so many tunnels as `dialer` says; `once`: the first failure ends it.
    pub(crate) fn new(hub: Arc<Hub>, dialer: Arc<Dialer>, tunnels: u32, once: bool) -> Client {
        let tunnel = |number| {
            let (redial, was_up) = (Notify::new(), AtomicBool::new(false));
            Tunnel { number, redial, was_up }
        };
        let tunnels = (0..tunnels).map(tunnel).collect();
        Client { hub, dialer: ArcSwap::new(dialer), tunnels, once }
    }

    /// Dials in another way from now on. With `redial` at once, and the tunnels that stand are
    /// retired.
    pub(crate) fn replace(&self, dialer: Arc<Dialer>, redial: bool) {
        self.dialer.store(dialer);
        if redial {
            self.tunnels.iter().for_each(|tunnel| tunnel.redial.notify_one());
        }
    }

    /// Dials until `stop`, each tunnel on a worker of its own as far as there are workers.
    ///
    /// # Errors
    /// With `once`: what the first attempt failed at.
    pub(crate) async fn run(self: &Arc<Self>, stop: CancellationToken) -> Result<(), String> {
        let mut all = JoinSet::new();
        for number in 0..self.tunnels.len() {
            let seat = self.hub.workers.tunnel();
            let (client, stop, runtime) = (self.clone(), stop.clone(), seat.runtime().clone());
            let keep = async move {
                let _seat = seat;
                client.keep(&client.tunnels[number], &stop).await
            };
            all.spawn_on(keep, &runtime);
        }
        while let Some(ended) = all.join_next().await {
            ended.map_err(|error| error.to_string())??;
        }
        Ok(())
    }

    /// Keeps one tunnel alive.
    async fn keep(&self, tunnel: &Tunnel, stop: &CancellationToken) -> Result<(), String> {
        let mut backoff = Backoff::default();
        let mut said = String::new();
        loop {
            let began = Instant::now();
            let failure = match self.attempt(tunnel, stop).await {
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
                let number = (tunnel.number > 0).then_some(tunnel.number);
                tracing::warn!(tunnel = number, "{text}; trying again");
                said = text;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = tunnel.redial.notified() => said.clear(),
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// One tunnel from beginning to end.
    async fn attempt(&self, tunnel: &Tunnel, stop: &CancellationToken) -> Attempt {
        let dialer = self.dialer.load_full();
        let address = dialer.server.authority();
        let session = self.hub.open(SERVER, Side::Dialer, address, tunnel.number);
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
            Ok(incoming) => self.live(tunnel, session, incoming, &dialer.server, stop).await,
        }
    }

    async fn live(
        &self,
        tunnel: &Tunnel,
        session: Session,
        incoming: crate::link::Received,
        server: &ServerUrl,
        stop: &CancellationToken,
    ) -> Attempt {
        self.hub.tunnels.fetch_add(1, Ordering::Relaxed);
        let again = u64::from(tunnel.was_up.swap(true, Ordering::Relaxed));
        self.hub.reconnects.fetch_add(again, Ordering::Relaxed);
        let (hub, live) = (Arc::clone(&self.hub), session.clone());
        // In a task of its own: a draining node still runs it after dialling has stopped.
        let run = self
            .hub
            .links
            .spawn(async move { hub.run(session, incoming, Box::new(|_| true)).await });
        let ended = tokio::select! {
            ended = run => ended,
            () = tunnel.redial.notified() => {
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
                    self.hub.hello.client_id
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
