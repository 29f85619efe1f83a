//! `strait demo`: a server, a client and sample backends for all three protocols in one
//! process, and a page on which a person sees them live at once, through the tunnel.

mod caller;
#[cfg(test)]
mod direct;
mod events;
pub(crate) mod load;
mod nodes;
mod sampler;
pub(crate) mod samples;
pub(crate) mod site;
pub(crate) mod socket;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use strait_node::observe::Live;

use nodes::{start_nodes, start_server};
use samples::start_samples;

/// What `strait demo` can be told.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Arguments {
    /// Port of the page [default: 8000, or a free one when that is taken]
    #[arg(long)]
    port: Option<u16>,
}

/// Runs the demo until it is interrupted.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    // Looking for what has arrived after 8 polls instead of 61 halves the median of small
    // requests beside bulk that takes every core; measured on two cores.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(8).build();
    let outcome = runtime.and_then(|runtime| {
        let outcome = runtime.block_on(demo(arguments));
        // Visitors may still hold answers that never end: nothing is worth waiting for.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "strait demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(arguments: &Arguments) -> io::Result<()> {
    let server = start_server(arguments.port).await?;
    let entry = server.entry;
    // The samples are there before the tunnel that reaches them.
    let known = Arc::new(OnceLock::<Arc<dyn Live>>::new());
    let asked = Arc::clone(&known);
    let status = move || serde_json::to_value(asked.get()?.snapshot()).ok();
    let samples = start_samples(entry, Arc::new(status))?;
    let mut nodes = start_nodes(server, &samples).await?;
    let _ = known.set(Arc::clone(&nodes.live));
    greet(entry);
    let outcome = tokio::select! {
        outcome = nodes.run() => outcome,
        stopped = interrupted() => stopped,
    };
    nodes.stop();
    outcome
}

/// Waits until somebody wants this to end.
pub(crate) async fn interrupted() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

fn greet(entry: SocketAddr) {
    let text = format!(
        "
  Open   http://{entry}/

  HTTP, WebSocket and gRPC, all through one gRPC stream. Also try:

    curl -N http://{entry}/clock
    curl \"http://{entry}/download?mb=500\" -o /dev/null
    websocat ws://{entry}/echo
    python3 -m websockets ws://{entry}/echo
    curl -sO http://{entry}/sampler.proto
    grpcurl -plaintext -proto sampler.proto {entry} strait.demo.v1.Sampler/Watch

  Ctrl-C ends it.

"
    );
    // Nobody may be reading: the page works all the same.
    let _ = io::stdout().write_all(text.as_bytes());
}
