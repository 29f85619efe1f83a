//! `strait check`: what is wrong with a file, and where.

use std::process::ExitCode;

use strait_node::config::{Config, Overrides, Role, load};

use crate::cli::CheckArguments;
use crate::{EXIT_CONFIG, say, tell};

/// Reads the file and all that it names; starts nothing.
pub(crate) fn run(arguments: &CheckArguments) -> ExitCode {
    match load(Some(&arguments.file), &Overrides::default()) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| tell(format_args!("warning: {warning}")));
            say(format_args!("{}: {}", arguments.file.display(), summary(&loaded.config)));
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(error);
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn summary(config: &Config) -> String {
    let count = |number: usize, one: &str, many: &str| {
        if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
    };
    let entries = count(config.entries.len(), "entry", "entries");
    let services = count(config.services.len(), "service", "services");
    match &config.role {
        Role::Server(tunnel) => {
            let tokens = match tunnel.tokens.len() {
                0 => "no token: anybody may connect".to_owned(),
                number => count(number, "token", "tokens"),
            };
            format!("good: a server on {} with {entries}, {services} and {tokens}", tunnel.listen)
        }
        Role::Client(dial) => {
            format!("good: a client of {} with {entries} and {services}", dial.server)
        }
    }
}
