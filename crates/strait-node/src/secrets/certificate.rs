//! The self-signed certificate of a server that was given none. Clients pin it.

use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

use crate::observe::time::civil_from_days;

/// A self-signed certificate for `localhost`, the loopback addresses and this host's name,
/// valid for ten years: clients trust its pin, not its dates.
#[derive(Clone, PartialEq, Eq)]
pub struct DevelopmentCertificate {
    cert_pem: String,
    key_pem: String,
}

impl DevelopmentCertificate {
    /// Makes a new one.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn make() -> Result<DevelopmentCertificate, String> {
        let said = |error: rcgen::Error| format!("cannot make a certificate: {error}");
        let mut names = vec!["localhost".to_owned()];
        let host = crate::config::host_name().to_ascii_lowercase();
        if !host.is_empty() && host != "localhost" && host.parse::<IpAddr>().is_err() {
            names.push(host);
        }
        names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
        let mut params = CertificateParams::new(names).map_err(said)?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "Strait development certificate");
        params.distinguished_name = subject;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (year, month, day) = civil_from_days((now / 86_400) as i64);
        // A year back: the clocks of two machines need not agree. The day is at most 28 so
        // that it exists in every month and year.
        let (month, day) = (month as u8, (day as u8).min(28));
        params.not_before = date_time_ymd(year as i32 - 1, month, day);
        params.not_after = date_time_ymd(year as i32 + 10, month, day);
        let key = KeyPair::generate().map_err(said)?;
        let cert = params.self_signed(&key).map_err(said)?;
        Ok(DevelopmentCertificate { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Takes one that was stored.
    pub fn from_pem(cert_pem: String, key_pem: String) -> DevelopmentCertificate {
        DevelopmentCertificate { cert_pem, key_pem }
    }

    /// The certificate.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

impl fmt::Debug for DevelopmentCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DevelopmentCertificate(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Identity;

    #[test]
    fn a_development_certificate_fits_its_key_and_hides_it() {
        let made = DevelopmentCertificate::make().unwrap();
        let identity = Identity::of(&made).unwrap();
        assert_eq!(identity.pin(), Identity::of(&made).unwrap().pin());
        let other = DevelopmentCertificate::make().unwrap();
        assert_ne!(identity.pin(), Identity::of(&other).unwrap().pin());
        let mixed = DevelopmentCertificate::from_pem(made.cert_pem.clone(), other.key_pem);
        assert!(Identity::of(&mixed).unwrap_err().contains("does not belong"));
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }
}
