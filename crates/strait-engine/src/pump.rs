//! From a body to a tunnel: the one pump for every protocol and both directions.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use strait_wire::Part;

use crate::stream::StreamWriter;
use crate::{BoxBody, Fault, Share};

/// Moves `body` into `writer` up to its end. A body that is cut cuts the request.
///
/// # Errors
/// The fault that ended it early: the body's, or the tunnel's.
pub(crate) async fn pump(mut body: BoxBody, mut writer: StreamWriter) -> Result<(), Fault> {
    let mut share = Share::of_body();
    let outcome = poll_fn(|cx| poll(&mut body, &mut writer, &mut share, cx)).await;
    if let Err(fault) = &outcome {
        // Nothing happens when it was the tunnel that cut.
        writer.abort(fault);
    }
    outcome
}

fn poll(
    body: &mut BoxBody,
    writer: &mut StreamWriter,
    share: &mut Share,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Fault>> {
    loop {
        // Asking for room first is the back-pressure, and tells when the request is cut.
        ready!(writer.poll_room(cx))?;
        ready!(share.poll_turn(writer.turns(), cx));
        let Poll::Ready(part) = body.poll_part(cx) else {
            share.rest();
            return Poll::Pending;
        };
        match part {
            Some(Ok(Part::Data(data))) => {
                share.spend(data.weight());
                // Known ends travel with the last piece instead of behind it.
                let end = body.is_end();
                if !data.bytes.is_empty() || data.start.is_some() || data.ends_message {
                    writer.push(data, end)?;
                } else if end {
                    writer.finish(None)?;
                }
                if end {
                    return Poll::Ready(Ok(()));
                }
            }
            Some(Ok(Part::Trailers(map))) => return Poll::Ready(writer.finish(Some(map))),
            Some(Err(fault)) => return Poll::Ready(Err(fault)),
            None => return Poll::Ready(writer.finish(None)),
        }
    }
}
