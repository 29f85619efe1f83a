//! What must not be seen: tokens, the development certificate, the folder they live in.

mod certificate;
mod failures;
mod state;
mod token;

pub use certificate::DevelopmentCertificate;
pub(crate) use failures::Failures;
pub use failures::{FIRST_REFUSAL, LONGEST_REFUSAL};
pub use state::{ServerSecrets, State, TokenState};
pub use strait_edge::tls::Pin;
pub use token::{LONGEST_TOKEN, Token, TokenDigest, authorise};
