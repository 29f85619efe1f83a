//! Moves the frames of one session from its link, and its time.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use strait_mux::Fatal;
use strait_wire::{Frame, GoAway, Reason};
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout};

use crate::{Session, Share, Turns};

/// The receiving half of a link.
pub trait Incoming: Send {
    /// The next frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// What broke. Nothing is received after that.
    fn next(&mut self) -> impl Future<Output = Result<Option<Frame>, LinkError>> + Send;
}

/// Why nothing can be received any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The connection broke; how, for the log.
    Broken(String),
    /// What came cannot be read as a frame: the peer's doing.
    Unreadable(Refusal),
}

/// Why a session was ended by this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The peer broke the protocol.
    Protocol(Fatal),
    /// What came is not a frame.
    Malformed(String),
    /// A message is over the size limit.
    TooLarge(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Protocol(fatal) => fatal.fmt(f),
            Refusal::Malformed(text) | Refusal::TooLarge(text) => f.write_str(text),
        }
    }
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// One of the sides said goodbye; why, when it was the peer.
    Goodbye(Option<GoAway>),
    /// The link broke, or the peer stopped answering.
    Lost(String),
    /// The peer broke the protocol; it was told why.
    Refused(Refusal),
}

/// How long a goodbye may take to be read by the peer.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long it is given to leave when nothing more can be received.
const PARTING: Duration = Duration::from_millis(200);

/// Receives for `session` until its link ends; then every request on it has ended too. The
/// sending half is pulled by the link itself, from [`Session::poll_frame`].
pub async fn drive(session: &Session, mut incoming: impl Incoming) -> Ending {
    let ending = receive(session, &mut incoming).await;
    if let Ending::Refused(why) = &ending {
        session.refuse(why);
        // Let the goodbye leave before the link is torn down.
        let rest = async {
            while let Ok(Some(_)) = incoming.next().await {}
            // What cannot be read ends at once, and nobody has heard why yet.
            sleep(PARTING).await;
        };
        let _ = timeout(FAREWELL, rest).await;
    }
    session.lose(Reason::ClientLost);
    ending
}

async fn receive(session: &Session, incoming: &mut impl Incoming) -> Ending {
    let mut goodbye = None;
    let mut alarm = pin!(sleep_until(Instant::now()));
    let mut share = Share::of_tunnel();
    loop {
        // Looked at before every frame: a peer that sends without pause must not be able to
        // put off the ping that shows that it does not read.
        if Instant::now() >= alarm.deadline() {
            match session.expire() {
                Ok(at) => alarm.as_mut().reset(Instant::from_std(at)),
                Err(fatal) => return Ending::Lost(fatal.to_string()),
            }
        }
        poll_fn(|cx| share.poll_turn(&Turns::NONE, cx)).await;
        let received = {
            let mut next = pin!(incoming.next());
            poll_fn(|cx| match next.as_mut().poll(cx) {
                Poll::Ready(received) => Poll::Ready(Some(received)),
                Poll::Pending => {
                    share.rest();
                    alarm.as_mut().poll(cx).map(|()| None)
                }
            })
            .await
        };
        let Some(received) = received else { continue };
        match received {
            Ok(Some(frame)) => {
                share.spend(frame.weight());
                if let Frame::GoAway(goaway) = &frame
                    && goaway.last.is_some()
                {
                    goodbye = Some(goaway.clone());
                }
                if let Err(fatal) = session.receive(frame) {
                    return Ending::Refused(Refusal::Protocol(fatal));
                }
            }
            Ok(None) | Err(_) if goodbye.is_some() || session.said_goodbye() => {
                return Ending::Goodbye(goodbye);
            }
            Ok(None) => return Ending::Lost("the stream ended without a goodbye".to_owned()),
            Err(LinkError::Broken(why)) => return Ending::Lost(why),
            Err(LinkError::Unreadable(why)) => return Ending::Refused(why),
        }
    }
}
