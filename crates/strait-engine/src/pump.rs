//! From a body to a tunnel: the one pump for every protocol and both directions.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use strait_wire::{Data, Part};

use crate::stream::StreamWriter;
use crate::{BoxBody, Fault, Share};

/// Moves `body` into `writer` up to its end. A body that is cut cuts the request.
///
/// # Errors
/// The fault that ended it early: the body's, or the tunnel's.
pub(crate) async fn pump(body: BoxBody, writer: StreamWriter) -> Result<(), Fault> {
    let mut pump = Pump { body, writer, share: Share::of_body(), rest: None };
    let outcome = poll_fn(|cx| pump.poll(cx)).await;
    if let Err(fault) = &outcome {
        // Nothing happens when it was the tunnel that cut.
        pump.writer.abort(fault);
    }
    outcome
}

struct Pump {
    body: BoxBody,
    writer: StreamWriter,
    share: Share,
    /// What there was no room for, and whether the body ends with it. Boxed, because few have it.
    rest: Option<Box<(Data, bool)>>,
}

impl Pump {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            // Asking for room first is the back-pressure, and tells when the request is cut.
            let room = ready!(self.writer.poll_room(cx))?;
            if let Some(rest) = &mut self.rest {
                let piece = rest.0.split_to(room);
                let whole = rest.0.bytes.is_empty();
                let end = whole && rest.1;
                if whole {
                    self.rest = None;
                }
                self.writer.push(piece, end)?;
                if end {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            ready!(self.share.poll_turn(self.writer.turns(), cx));
            if room < usize::MAX {
                self.body.at_most(room);
            }
            let Poll::Ready(part) = self.body.poll_part(cx) else {
                self.share.rest();
                return Poll::Pending;
            };
            match part {
                Some(Ok(Part::Data(data))) => {
                    self.share.spend(data.weight());
                    // Known ends travel with the last piece instead of behind it.
                    let end = self.body.is_end();
                    if data.bytes.len() > room {
                        self.rest = Some(Box::new((data, end)));
                        continue;
                    }
                    if !data.bytes.is_empty() || data.start.is_some() || data.ends_message {
                        self.writer.push(data, end)?;
                    } else if end {
                        self.writer.finish(None)?;
                    }
                    if end {
                        return Poll::Ready(Ok(()));
                    }
                }
                Some(Ok(Part::Trailers(map))) => return Poll::Ready(self.writer.finish(Some(map))),
                Some(Err(fault)) => return Poll::Ready(Err(fault)),
                None => return Poll::Ready(self.writer.finish(None)),
            }
        }
    }
}
