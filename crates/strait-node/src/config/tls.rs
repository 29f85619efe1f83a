//! Certificates and keys from files, checked before anything listens.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::TunnelTls;
use crate::secrets::{DevelopmentCertificate, Pin};

/// PEM files over this size are not certificates.
const LARGEST: u64 = 4 << 20;

/// A certificate chain with its key, ready for a TLS acceptor.
#[derive(Debug)]
pub struct Identity {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads PEM files and checks that they belong together.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Identity, String> {
        Identity::from_pem(
            &read(cert)?,
            &read(key)?,
            &cert.display().to_string(),
            &key.display().to_string(),
        )
    }

    /// Reads PEM texts; the names stand for them in errors.
    fn from_pem(
        cert: &[u8],
        key: &[u8],
        cert_name: &str,
        key_name: &str,
    ) -> Result<Identity, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        let chain = chain.map_err(|error| format!("certificate {cert_name}: {error}"))?;
        let has_key = |pem: &[u8]| PrivateKeyDer::from_pem_slice(pem).is_ok();
        if chain.is_empty() {
            let swapped =
                if has_key(cert) { ": it holds a private key; are the two swapped?" } else { "" };
            return Err(format!("certificate {cert_name} holds no PEM certificate{swapped}"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            let swapped = match CertificateDer::from_pem_slice(key) {
                Ok(_) => ": it holds a certificate; are the two swapped?",
                Err(_) => "; an unencrypted PKCS#8, PKCS#1 or SEC1 key is needed",
            };
            format!("key {key_name} holds no PEM private key{swapped}")
        })?;
        let provider = rustls::crypto::ring::default_provider();
        match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
            Ok(_) => Ok(Identity { chain, key }),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(format!("key {key_name} does not belong to certificate {cert_name}"))
            }
            Err(error) => Err(format!("{cert_name} with {key_name}: {error}")),
        }
    }

    /// SHA-256 of the leaf certificate.
    pub fn pin(&self) -> Pin {
        Pin::of(self.chain.first().map_or(&[][..], |leaf| leaf.as_ref()))
    }

    /// Seconds until the leaf expires, negative when it has; `None` when that cannot be read.
    pub fn expires_in(&self) -> Option<i64> {
        let not_after = not_after(self.chain.first()?)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        Some(not_after - i64::try_from(now).ok()?)
    }
}

impl TunnelTls {
    /// The certificate to serve; `None` without TLS. A development certificate that does not
    /// exist yet is made, for this process only.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn identity(&self) -> Result<Option<Identity>, String> {
        match self {
            TunnelTls::Off => Ok(None),
            TunnelTls::Pem { cert, key } => Identity::from_files(cert, key).map(Some),
            TunnelTls::Made(made) => Identity::of(made).map(Some),
            TunnelTls::Development => Identity::of(&DevelopmentCertificate::make()?).map(Some),
        }
    }
}

impl Identity {
    /// The identity of a development certificate.
    ///
    /// # Errors
    /// When its text is damaged.
    pub fn of(made: &DevelopmentCertificate) -> Result<Identity, String> {
        let (cert, key) = (made.cert_pem().as_bytes(), made.key_pem().as_bytes());
        Identity::from_pem(cert, key, "of development", "of development")
    }
}

/// Whether a file holds certificates of authorities (PEM), each fit to be one.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_ca(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let pem = read(path).map_err(|said| format!("`ca`: {said}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("`ca`: {shown}: {error}"))?;
        roots.add(certificate).map_err(|error| format!("`ca`: {shown}: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("`ca`: {shown} holds no PEM certificate"));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let said = |error: std::io::Error| format!("cannot read {shown}: {error}");
    let meta = std::fs::metadata(path).map_err(said)?;
    if !meta.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    if meta.len() > LARGEST {
        return Err(format!("{shown} is too large for a PEM file"));
    }
    std::fs::read(path).map_err(said)
}

/// `notAfter` of a certificate as seconds since 1970 (RFC 5280 4.1.2.5).
fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = element(der)?;
    let (tbs, _) = element(certificate.body)?;
    let mut rest = tbs.body;
    // [0] version (optional), serialNumber, signature, issuer, then validity.
    let mut skip = 3;
    while skip > 0 {
        let (field, after) = element(rest)?;
        rest = after;
        if field.tag != 0xA0 {
            skip -= 1;
        }
    }
    let (validity, _) = element(rest)?;
    let (_, after) = element(validity.body)?;
    let (time, _) = element(after)?;
    let text = std::str::from_utf8(time.body).ok()?;
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, at) = match time.tag {
        0x17 => number(0, 2).map(|yy| (if yy < 50 { 2000 + yy } else { 1900 + yy }, 2))?,
        0x18 => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, at + 2)?, number(at + 2, at + 4)?);
    let (hour, minute) = (number(at + 4, at + 6)?, number(at + 6, at + 8)?);
    let days = crate::observe::time::days_from_civil(year, month, day);
    Some(days * 86_400 + hour * 3600 + minute * 60 + number(at + 8, at + 10)?)
}

struct Element<'a> {
    tag: u8,
    body: &'a [u8],
}

/// The first DER element and what follows it.
fn element(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7F);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
    };
    let (body, after) = rest.split_at_checked(length)?;
    Some((Element { tag, body }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let made = DevelopmentCertificate::make().unwrap();
        let left = Identity::of(&made).unwrap().expires_in().unwrap();
        let years = left / (365 * 86_400);
        assert!((9..=10).contains(&years), "{years}");
    }

    #[test]
    fn damaged_der_is_no_certificate() {
        let made = DevelopmentCertificate::make().unwrap();
        let der = Identity::of(&made).unwrap().chain[0].to_vec();
        for end in 0..der.len() {
            let _ = not_after(&der[..end]);
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]), None);
    }
}
