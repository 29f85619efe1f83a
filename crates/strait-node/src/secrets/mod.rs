//! What must not be seen: tokens, the development certificate, the folder they live in.

mod certificate;
mod state;
mod token;

pub use certificate::{DevelopmentCertificate, Pin};
pub use state::{ServerSecrets, State, TokenState};
pub use token::{LONGEST_TOKEN, Token, TokenDigest, authorise};
