//! `strait client`.

use std::process::ExitCode;

use strait_node::config::{Overrides, RoleKind, load};

use crate::cli::ClientArguments;
use crate::run::{self, Prepared};
use crate::{EXIT_CONFIG, EXIT_USAGE, fail, greet, tell};

/// Runs a client until it is told to stop.
pub(crate) fn run(arguments: &ClientArguments) -> ExitCode {
    let mut over = Overrides {
        role: Some(RoleKind::Client),
        entries: arguments.entry.clone(),
        services: arguments.services.0.clone(),
        server: arguments.server.clone(),
        ca: arguments.ca.clone(),
        pin: arguments.pin,
        id: arguments.id.clone(),
        once: arguments.once,
        tunnels: arguments.tunnels,
        ..Overrides::default()
    };
    match arguments.token.as_ref().map(|secret| secret.token()).transpose() {
        Ok(token) => over.token = token,
        Err(message) => return fail(EXIT_USAGE, format_args!("--token: {message}")),
    }
    arguments.node.lay_over(&mut over);
    if arguments.node.config.is_none() {
        if over.server.is_none() {
            let message = "which server? Give --server https://HOST:7443, as `strait server` \
                           prints it, or --config FILE";
            return fail(EXIT_USAGE, message);
        }
        if over.services.is_empty() && over.entries.is_empty() {
            let message = "nothing to do: name a service (http 3000, grpc 50051) or an entry \
                           (--entry 8081)";
            return fail(EXIT_USAGE, message);
        }
    }
    match load(arguments.node.config.as_deref(), &over) {
        Ok(loaded) => run::run(Prepared {
            config: loaded.config,
            from_file: arguments.node.config.is_some(),
            read: {
                let file = arguments.node.config.clone();
                Box::new(move || load(file.as_deref(), &over))
            },
            warnings: loaded.warnings,
            greet: Box::new(|config, addresses| (greet::client(config, addresses), Vec::new())),
        }),
        Err(error) => {
            tell(error);
            // What flags alone say is the command line's mistake.
            ExitCode::from(if arguments.node.config.is_some() { EXIT_CONFIG } else { EXIT_USAGE })
        }
    }
}
