//! `strait bench`: measures a tunnel on this machine, with its processes as they would be
//! elsewhere.

mod backend;
mod bulk;
mod caller;
mod contest;
mod isolation;
mod latency;
mod load;
mod meter;
mod pace;
mod phase;
mod plot;
mod relay;
mod report;
mod results;
mod spread;
mod svg;
mod units;
mod usage;
mod world;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use crate::demo::interrupted;
use crate::{fail, say};
use report::Progress;

/// The exit code of a program that was interrupted (128 and SIGINT).
const EXIT_INTERRUPTED: u8 = 130;

/// What `strait bench` can be told.
#[derive(clap::Args, Clone, Debug)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// What small requests pay for bulk, stalled readers and idle sockets beside them
    Isolation(isolation::Arguments),
    /// How many small requests get through, and what each costs
    Load(load::Arguments),
    /// The backend of the others
    #[command(hide = true)]
    Backend {
        /// Where to listen
        address: SocketAddr,
    },
}

/// Runs one bench, or its backend.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match arguments.command.clone() {
        Command::Backend { address } => {
            on_a_runtime(async move { backend::serve(address).await.map(|()| ExitCode::SUCCESS) })
        }
        Command::Isolation(arguments) => on_a_runtime(async move {
            let json = arguments.json;
            let report = isolation::run(arguments, &Progress::new()).await?;
            Ok(shown(json, report.is_one(), || report.json(), || report.text()))
        }),
        Command::Load(arguments) => on_a_runtime(async move {
            let json = arguments.json;
            let report = load::run(arguments, &Progress::new()).await?;
            Ok(shown(json, report.is_one(), || report.json(), || report.text()))
        }),
    }
}

fn shown(
    json: bool,
    is_one: bool,
    value: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> ExitCode {
    if json {
        say(format_args!("{:#}", value()));
    } else {
        say(format_args!("\n{}", text().trim_end()));
    }
    match is_one {
        true => ExitCode::SUCCESS,
        false => fail(1, "most requests failed: this measures nothing"),
    }
}

/// Runs `work` to its end, or until somebody wants it to end; what it started ends with it.
fn on_a_runtime(work: impl Future<Output = io::Result<ExitCode>>) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(8).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, format_args!("cannot start: {error}")),
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = work => outcome,
            stopped = interrupted() => stopped.map(|()| fail(EXIT_INTERRUPTED, "interrupted")),
        }
    });
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| {
        let code = if error.kind() == io::ErrorKind::InvalidInput { 2 } else { 1 };
        fail(code, format_args!("bench: {error}"))
    })
}
