//! Tokens: 256 random bits, known to the client; their SHA-256, known to the server.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::TokenRule;

/// Longer credentials are refused unread, in bytes.
pub const LONGEST_TOKEN: usize = 4096;

/// A credential. Its text is never shown by `Debug` and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new token of 256 random bits.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Token, String> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
        Ok(Token(format!("st_{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Takes a token that came from a person or a file.
    ///
    /// # Errors
    /// What is allowed; the text itself is not repeated.
    pub fn parse(text: &str) -> Result<Token, String> {
        if text.is_empty() {
            return Err("the token is empty; make one with `strait token`".to_owned());
        }
        if text.len() > LONGEST_TOKEN {
            return Err(format!("the token is longer than {LONGEST_TOKEN} bytes"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token is visible ASCII without spaces; copy it again".to_owned());
        }
        Ok(Token(text.to_owned()))
    }

    /// The text, for the one place that sends or prints it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What a server keeps of it.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a presented credential.
    pub fn of(token: &[u8]) -> TokenDigest {
        TokenDigest(Sha256::digest(token).into())
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(***)")
    }
}

impl FromStr for TokenDigest {
    type Err = ();

    fn from_str(text: &str) -> Result<TokenDigest, ()> {
        hex32(text.strip_prefix("sha256:").unwrap_or(text)).map(TokenDigest).ok_or(())
    }
}

/// 32 bytes from 64 hex digits.
fn hex32(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// The rule that a presented credential fulfils. Every rule is compared, in constant time:
/// how long it takes tells nothing about which tokens exist.
pub fn authorise<'a>(rules: &'a [TokenRule], presented: &[u8]) -> Option<&'a TokenRule> {
    // An over-long credential is not worth hashing, yet goes the same way as a wrong one.
    let fits = presented.len() <= LONGEST_TOKEN && !presented.is_empty();
    let digest = TokenDigest::of(if fits { presented } else { &[] });
    let mut found = u32::MAX;
    for (index, rule) in rules.iter().enumerate() {
        let equal = rule.sha256.0.ct_eq(&digest.0) & Choice::from(u8::from(fits));
        found.conditional_assign(&(index as u32), equal);
    }
    rules.get(found as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, token: &Token) -> TokenRule {
        TokenRule { name: name.to_owned(), sha256: token.digest(), services: vec!["*".to_owned()] }
    }

    #[test]
    fn a_token_opens_its_own_rule_only() {
        let (a, b, c) =
            (Token::generate().unwrap(), Token::generate().unwrap(), Token::generate().unwrap());
        let rules = [rule("a", &a), rule("b", &b)];
        let name = |text: &[u8]| authorise(&rules, text).map(|rule| rule.name.clone());
        assert_eq!(name(a.reveal().as_bytes()).as_deref(), Some("a"));
        assert_eq!(name(b.reveal().as_bytes()).as_deref(), Some("b"));
        assert_eq!(name(c.reveal().as_bytes()), None);
        assert_eq!(name(b""), None);
        assert_eq!(name(&a.reveal().as_bytes()[..45]), None);
        assert_eq!(name(&vec![b'x'; 1 << 20]), None);
        assert!(authorise(&[], a.reveal().as_bytes()).is_none());
    }

    #[test]
    fn an_empty_credential_opens_nothing_even_where_its_digest_is_configured() {
        let rules = [TokenRule {
            name: "empty".to_owned(),
            sha256: TokenDigest::of(b""),
            services: vec!["*".to_owned()],
        }];
        assert!(authorise(&rules, b"").is_none());
        assert!(authorise(&rules, &vec![b'x'; 5000]).is_none());
    }

    #[test]
    fn tokens_are_random_and_never_shown() {
        let (a, b) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.reveal().len(), 3 + 43);
        assert!(a.reveal().starts_with("st_"));
        let shown = format!("{a:?} {:?} {:?}", a.digest(), rule("a", &a));
        assert!(!shown.contains(a.reveal()) && !shown.contains(&a.digest().to_string()), "{shown}");
    }

    #[test]
    fn digests_are_read_as_they_are_printed() {
        let digest = Token::generate().unwrap().digest();
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(format!("sha256:{digest}").parse(), Ok(digest));
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert_eq!(bad.parse::<TokenDigest>(), Err(()), "{bad}");
        }
    }
}
