//! `strait server`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use strait_node::config::{
    Config, ConfigError, Overrides, Role, RoleKind, TokenRule, TunnelTls, load,
};
use strait_node::reload::Read;
use strait_node::secrets::{ServerSecrets, State};

use crate::cli::ServerArguments;
use crate::greet::{self, TokenShown};
use crate::run::{self, Prepared};
use crate::{EXIT_CONFIG, EXIT_USAGE, fail, tell};

/// Runs a server until it is told to stop.
pub(crate) fn run(arguments: &ServerArguments) -> ExitCode {
    let over = match overrides(arguments) {
        Ok(over) => over,
        Err(message) => return fail(EXIT_USAGE, message),
    };
    let mut loaded = match load(arguments.node.config.as_deref(), &over) {
        Ok(loaded) => loaded,
        Err(error) => {
            tell(error);
            // What flags alone say is the command line's mistake.
            let code = if arguments.node.config.is_some() { EXIT_CONFIG } else { EXIT_USAGE };
            return ExitCode::from(code);
        }
    };
    let state = State::usual();
    let token = over.token_will_follow;
    let certificate = needs_certificate(&loaded.config);
    let secrets = match state.server_secrets(certificate, token, arguments.new_token) {
        Ok(secrets) => secrets,
        Err(message) => return fail(1, message),
    };
    apply(&mut loaded.config, &secrets);
    loaded.warnings.extend(secrets.warnings.iter().cloned());
    let shown = match &secrets.token {
        Some(token) => match &token.fresh {
            Some(fresh) => TokenShown::Fresh(fresh.clone()),
            None => TokenShown::Remembered,
        },
        None if over.insecure_no_auth => TokenShown::NotNeeded,
        None => TokenShown::Configured,
    };
    let folder = (certificate || token).then(|| state.folder().map(ToOwned::to_owned)).flatten();
    let (token, told) = (secrets.token.clone(), secrets.warnings.clone());
    run::run(Prepared {
        config: loaded.config,
        from_file: arguments.node.config.is_some(),
        read: again(arguments.node.config.clone(), over, state.clone(), secrets),
        warnings: loaded.warnings,
        greet: Box::new(move |config, addresses| {
            // Only a token that has been seen may be remembered, and only one that can be
            // presented may be shown: so it is kept now that the node listens.
            let mut problems = token.as_ref().map_or(Vec::new(), |token| state.keep(token));
            problems.retain(|warning| !told.contains(warning));
            let text = greet::server(config, addresses, &shown, folder.as_deref());
            (text, problems)
        }),
    })
}

/// Reads the configuration once more, with the secrets of this process.
fn again(file: Option<PathBuf>, over: Overrides, state: State, secrets: ServerSecrets) -> Read {
    let secrets = Mutex::new(secrets);
    Box::new(move || {
        let mut loaded = load(file.as_deref(), &over)?;
        let mut secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if needs_certificate(&loaded.config) && secrets.certificate.is_none() {
            let more = state.server_secrets(true, false, false);
            let more = more.map_err(|message| ConfigError::whole("", message))?;
            secrets.certificate = more.certificate;
            loaded.warnings.extend(more.warnings);
        }
        apply(&mut loaded.config, &secrets);
        Ok(loaded)
    })
}

fn overrides(arguments: &ServerArguments) -> Result<Overrides, String> {
    let no_tls = arguments.no_tls || arguments.insecure_no_tls;
    if no_tls && arguments.tls_cert.is_some() {
        return Err("a certificate and no TLS are both asked for: drop one of them".to_owned());
    }
    if arguments.insecure_no_auth && arguments.token.is_some() {
        return Err("--token and --insecure-no-auth are both given: drop one of them".to_owned());
    }
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(cert), Some(key)) => Some(TunnelTls::Pem { cert: cert.clone(), key: key.clone() }),
        _ if no_tls => Some(TunnelTls::Off),
        _ => None,
    };
    let token = arguments.token.as_ref().map(|secret| secret.token()).transpose();
    let token = token.map_err(|message| format!("--token: {message}"))?;
    let from_state =
        arguments.node.config.is_none() && token.is_none() && !arguments.insecure_no_auth;
    let mut over = Overrides {
        role: Some(RoleKind::Server),
        entries: arguments.listen.clone(),
        entry_tls: arguments.entry_cert.clone().zip(arguments.entry_key.clone()),
        services: arguments.services.0.clone(),
        token,
        token_will_follow: from_state,
        tunnel: arguments.tunnel,
        tls,
        insecure_no_tls: arguments.insecure_no_tls,
        insecure_no_auth: arguments.insecure_no_auth,
        ..Overrides::default()
    };
    // `--no-tls` alone moves the tunnel to where it is allowed.
    if arguments.no_tls && !arguments.insecure_no_tls && arguments.node.config.is_none() {
        over.tunnel = over.tunnel.or(Some(([127, 0, 0, 1], 7443).into()));
    }
    arguments.node.lay_over(&mut over);
    Ok(over)
}

fn needs_certificate(config: &Config) -> bool {
    matches!(&config.role, Role::Server(tunnel) if matches!(tunnel.tls, TunnelTls::Development))
}

/// Gives the server what it was not given.
fn apply(config: &mut Config, secrets: &ServerSecrets) {
    let Role::Server(tunnel) = &mut config.role else { return };
    if let Some(certificate) = &secrets.certificate {
        tunnel.tls = TunnelTls::Made(certificate.clone());
    }
    if let Some(token) = &secrets.token {
        let services = vec!["*".to_owned()];
        let rule = TokenRule { name: "default".to_owned(), sha256: token.sha256, services };
        tunnel.tokens.push(rule);
    }
}
