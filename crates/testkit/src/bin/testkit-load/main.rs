//! A backend and a load generator that are fast enough not to be what is measured.
//!
//! Each answer of the backend carries a digest of its whole request, so the generator can
//! tell an answer that was lost from one that was mixed up with another.

mod backend;
mod callers;
mod calls;
mod drive;
mod frames;
mod interop;
mod leavers;
mod serve;
mod sockets;
mod streams;
mod tally;
mod upload;

use std::process::ExitCode;

const HELP: &str = "\
usage: testkit-load serve ADDR
       testkit-load run [--h2] --requests N --concurrency N http://ADDR/PATH
       testkit-load sockets SOCKETS MESSAGES http://ADDR/PATH
       testkit-load calls CALLS MESSAGES http://ADDR/PATH
       testkit-load leave REQUESTS CONCURRENCY http://ADDR/PATH...
       testkit-load backend ADDR
       testkit-load drive KIND ADDR [--streams N] [--connections N] [--seconds N] [--count N]
       testkit-load interop-server PORT
       testkit-load interop-client ADDR

  serve    answers HTTP/1.1 and HTTP/2 without TLS:
             /…/small            1 KiB
             /…/wait?ms=N        after N milliseconds
             /…/endless?n=N&note=WORD  N bytes; what was pulled is counted under WORD
             /…/seen             the counts, and how many connections there are, as JSON
             WebSocket, gRPC     what is sent comes back
             anything else       the SHA-256 of method, target and body, in hexadecimal
  run      sends N small POSTs, each different, and checks the digest in each answer;
           prints one line of JSON and fails unless every answer was right
  sockets  opens WebSockets and prints a line; after a line on standard input it sends
           numbered messages on each, one after the other, and checks the echoes
  calls    opens gRPC calls of both directions with a message every second on each, and
           checks the echoes; times count from when a message was due
  leave    requests of all three protocols that are given up at some moment
  backend  the backend of the bench, HTTP/1.1 and HTTP/2 without TLS: /small (1 KiB),
           /bulk (1 GiB), /up, /socket (WebSocket echo), /bench.Bench/Echo (gRPC echo)
  drive    loads such a backend on one thread, for --seconds or until --count things (MiB of
           bodies) are done; prints one line of JSON. KIND is one of
             get     small requests, on --streams connections that are kept
             new     small requests, each on a connection of its own
             down, up   bytes, on --streams connections
             echo    WebSocket messages, on --streams sockets
             idle    opens --streams sockets and holds them until standard input ends
             unary   gRPC calls, --streams at once on --connections
             stream  gRPC messages to and fro on --streams calls
  interop  gRPC's interoperability tests with tonic; the client prints a line for each
           case, `ok NAME` or `FAIL NAME: what came`
";

/// What any part of this program may fail with.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let alone = words.first().is_some_and(|word| word == "drive");
    let mut runtime = match alone {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build();
    let outcome = match (runtime, words.split_first()) {
        (Ok(runtime), Some((word, rest))) if word == "serve" => {
            runtime.block_on(serve::serve(rest)).map(|()| true)
        }
        (Ok(runtime), Some((word, rest))) if word == "run" => {
            callers::Plan::parse(rest).and_then(|plan| runtime.block_on(callers::run(plan)))
        }
        (Ok(runtime), Some((word, rest))) if word == "backend" => {
            runtime.block_on(backend::serve(rest)).map(|()| true)
        }
        (Ok(runtime), Some((word, rest))) if word == "drive" => {
            drive::Drive::parse(rest).and_then(|drive| runtime.block_on(drive::run(drive)))
        }
        (Ok(runtime), Some((word, rest))) if word == "interop-server" => {
            runtime.block_on(interop::server::serve(rest)).map(|()| true)
        }
        (Ok(runtime), Some((word, rest))) if word == "interop-client" => {
            runtime.block_on(interop::client::run(rest))
        }
        (Ok(runtime), Some((word, rest))) if word == "sockets" => {
            sockets::Plan::parse(rest).and_then(|plan| runtime.block_on(sockets::run(plan)))
        }
        (Ok(runtime), Some((word, rest))) if word == "calls" => {
            calls::Plan::parse(rest).and_then(|plan| runtime.block_on(calls::run(plan)))
        }
        (Ok(runtime), Some((word, rest))) if word == "leave" => {
            leavers::Plan::parse(rest).and_then(|plan| runtime.block_on(leavers::run(plan)))
        }
        (Err(error), _) => Err(error.into()),
        _ => Err(HELP.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
