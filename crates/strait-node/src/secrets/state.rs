//! The state folder: what a server that was told nothing must remember over restarts.
//!
//! It holds `development-cert.pem`, `development-key.pem` (0600) and `token.sha256`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{DevelopmentCertificate, Token, TokenDigest};
use crate::config::Identity;

const CERT: &str = "development-cert.pem";
const KEY: &str = "development-key.pem";
const TOKEN: &str = "token.sha256";

const NOWHERE: &str = "there is no HOME to keep state in: certificate and token are new at every \
                       start, and clients then need the new command (STRAIT_STATE names a folder)";

/// The state folder, or memory where there can be none.
#[derive(Clone, Debug)]
pub struct State {
    folder: Option<PathBuf>,
}

/// What a server needs that nobody gave it.
#[derive(Debug)]
pub struct ServerSecrets {
    /// Made at the first start, the same ever after.
    pub certificate: Option<DevelopmentCertificate>,
    /// The token that clients may present.
    pub token: Option<TokenState>,
    /// What went wrong on the way and what it means.
    pub warnings: Vec<String>,
}

/// A token that the state folder remembers.
#[derive(Clone, Debug)]
pub struct TokenState {
    /// What is kept.
    pub sha256: TokenDigest,
    /// The token itself, only when it was made just now.
    pub fresh: Option<Token>,
}

impl State {
    /// The usual place: `$STRAIT_STATE`, else `$XDG_STATE_HOME/strait`, else
    /// `~/.local/state/strait`; without any of these, memory.
    pub fn usual() -> State {
        let var = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let folder = var("STRAIT_STATE")
            .or_else(|| var("XDG_STATE_HOME").map(|base| base.join("strait")))
            .or_else(|| var("HOME").map(|home| home.join(".local/state/strait")));
        State { folder }
    }

    /// A folder of one's own choice.
    pub fn at(folder: impl Into<PathBuf>) -> State {
        State { folder: Some(folder.into()) }
    }

    /// The folder, when there is one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Loads or makes what a server needs. What cannot be stored is made for this process
    /// only, with a warning.
    ///
    /// # Errors
    /// When there is no randomness, or no certificate can be made.
    pub fn server_secrets(
        &self,
        certificate: bool,
        token: bool,
        new_token: bool,
    ) -> Result<ServerSecrets, String> {
        let mut secrets = ServerSecrets { certificate: None, token: None, warnings: Vec::new() };
        if certificate {
            secrets.certificate = Some(self.certificate(&mut secrets.warnings)?);
        }
        if token {
            secrets.token = Some(self.token(new_token, &mut secrets.warnings)?);
        }
        secrets.warnings.dedup();
        Ok(secrets)
    }

    fn certificate(&self, warnings: &mut Vec<String>) -> Result<DevelopmentCertificate, String> {
        if let Some(folder) = &self.folder {
            let stored = fs::read_to_string(folder.join(CERT))
                .and_then(|cert| Ok((cert, fs::read_to_string(folder.join(KEY))?)));
            match stored {
                Ok((cert, key)) => {
                    let stored = DevelopmentCertificate::from_pem(cert, key);
                    match Identity::of(&stored) {
                        Ok(_) => return Ok(stored),
                        Err(why) => {
                            let folder = folder.display();
                            warnings.push(format!("{folder}: {why}; a new one was made"));
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => warnings.push(cannot("read", folder, &error)),
            }
        }
        let made = DevelopmentCertificate::make()?;
        self.store(warnings, &[(KEY, made.key_pem()), (CERT, made.cert_pem())]);
        Ok(made)
    }

    fn token(&self, new: bool, warnings: &mut Vec<String>) -> Result<TokenState, String> {
        if let Some(folder) = self.folder.as_ref().filter(|_| !new) {
            match fs::read_to_string(folder.join(TOKEN)) {
                Ok(text) => match text.trim().parse() {
                    Ok(sha256) => return Ok(TokenState { sha256, fresh: None }),
                    Err(()) => warnings.push(format!(
                        "{} is damaged; a new token was made",
                        folder.join(TOKEN).display()
                    )),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => warnings.push(cannot("read", folder, &error)),
            }
        }
        if self.folder.is_none() {
            warnings.push(NOWHERE.to_owned());
        }
        let token = Token::generate()?;
        Ok(TokenState { sha256: token.digest(), fresh: Some(token) })
    }

    /// Remembers a token that was made just now; to be called when it is about to be shown,
    /// because one that nobody has seen would lock everybody out. Says what went wrong.
    pub fn keep(&self, token: &TokenState) -> Vec<String> {
        let mut warnings = Vec::new();
        if token.fresh.is_some() && self.folder.is_some() {
            self.store(&mut warnings, &[(TOKEN, &format!("{}\n", token.sha256))]);
        }
        warnings
    }

    fn store(&self, warnings: &mut Vec<String>, files: &[(&str, &str)]) {
        let Some(folder) = &self.folder else {
            warnings.push(NOWHERE.to_owned());
            return;
        };
        let stored = private_folder(folder)
            .and_then(|()| files.iter().try_for_each(|(name, text)| write(folder, name, text)));
        if let Err(error) = stored {
            let message = cannot("write", folder, &error);
            if !warnings.contains(&message) {
                warnings.push(message);
            }
        }
    }
}

fn cannot(verb: &str, folder: &Path, error: &io::Error) -> String {
    format!(
        "cannot {verb} the state folder {}: {error}; what is made now is new again at the next \
         start, and clients then need the new command (STRAIT_STATE names another folder)",
        folder.display()
    )
}

fn private_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Writes beside and renames, so that a crash leaves the old file or the new one; only the
/// owner may read it.
fn write(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let done = written.and_then(|()| fs::rename(&beside, folder.join(name)));
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("strait-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn secrets_are_made_once_and_the_token_is_told_once() {
        let folder = scratch("once");
        let state = State::at(&folder);
        let first = state.server_secrets(true, true, false).unwrap();
        assert_eq!(first.warnings, Vec::<String>::new());
        let fresh = first.token.as_ref().unwrap().fresh.clone().unwrap();
        assert!(!folder.join(TOKEN).exists(), "nobody has seen it yet");
        assert_eq!(state.keep(first.token.as_ref().unwrap()), Vec::<String>::new());
        let second = state.server_secrets(true, true, false).unwrap();
        assert!(second.token.as_ref().unwrap().fresh.is_none());
        assert_eq!(second.token.unwrap().sha256, fresh.digest());
        assert_eq!(second.certificate.unwrap().cert_pem(), first.certificate.unwrap().cert_pem());
        let third = state.server_secrets(false, true, true).unwrap().token.unwrap();
        assert_ne!(third.fresh.unwrap(), fresh);
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            assert!(!fs::read_to_string(&path).unwrap().contains(fresh.reveal()));
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn without_a_folder_secrets_live_in_memory_and_that_is_said() {
        let file = scratch("file");
        fs::write(&file, "not a folder").unwrap();
        for state in [State { folder: None }, State::at(file.join("below"))] {
            let secrets = state.server_secrets(true, true, false).unwrap();
            assert!(secrets.certificate.is_some() && secrets.token.unwrap().fresh.is_some());
            assert!(
                secrets.warnings.iter().any(|w| w.contains("STRAIT_STATE")),
                "{:?}",
                secrets.warnings
            );
        }
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn damaged_secrets_are_replaced_and_that_is_said() {
        let folder = scratch("damaged");
        let state = State::at(&folder);
        state.server_secrets(true, false, false).unwrap();
        fs::write(folder.join(CERT), "nonsense").unwrap();
        fs::write(folder.join(TOKEN), "nonsense").unwrap();
        let secrets = state.server_secrets(true, true, false).unwrap();
        assert_eq!(secrets.warnings.len(), 2, "{:?}", secrets.warnings);
        state.keep(&secrets.token.unwrap());
        assert_eq!(state.server_secrets(true, true, false).unwrap().warnings.len(), 0);
        fs::remove_dir_all(folder).unwrap();
    }
}
