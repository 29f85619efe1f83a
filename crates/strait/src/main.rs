//! `strait`: HTTP, WebSocket and gRPC, both ways, through one gRPC stream.

mod bench;
mod check;
mod cli;
mod client;
mod demo;
mod greet;
mod run;
mod server;
mod services;
mod signals;
mod status;
mod token;

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration is wrong (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// The command line is wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.command {
        cli::Command::Server(arguments) => server::run(&arguments),
        cli::Command::Client(arguments) => client::run(&arguments),
        cli::Command::Demo(arguments) => demo::run(&arguments),
        cli::Command::Bench(arguments) => bench::run(&arguments),
        cli::Command::Check(arguments) => check::run(&arguments),
        cli::Command::Status(arguments) => status::run(&arguments),
        cli::Command::Token => token::run(),
    }
}

/// Prints to standard output. Nobody may be reading: that is no error of ours.
fn say(text: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints to standard error, if anybody reads it.
fn tell(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says why the program ends, and ends it with `code`.
fn fail(code: u8, why: impl fmt::Display) -> ExitCode {
    tell(format_args!("strait: {why}"));
    ExitCode::from(code)
}
