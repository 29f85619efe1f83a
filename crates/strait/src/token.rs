//! `strait token`: a new token for a server that several clients share.

use std::process::ExitCode;

use strait_node::secrets::Token;

use crate::{fail, say};

/// Prints a new token and what a server's file says about it.
pub(crate) fn run() -> ExitCode {
    match Token::generate() {
        Ok(token) => {
            say(format_args!(
                "token   {}\nsha256  {}\n\n\
                 The client presents the token; the server's file holds its SHA-256 only:\n\n  \
                 [[server.tokens]]\n  name = \"laptop\"\n  sha256 = \"{}\"",
                token.reveal(),
                token.digest(),
                token.digest()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, error),
    }
}
