//! TLS configurations: of entries and tunnel servers, of backends and tunnel clients.
//!
//! Always with the ring provider by name: if a dependency turned on another provider, the
//! plain rustls builders would panic at first use.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use subtle::ConstantTimeEq;

/// Why a TLS configuration cannot be made; says what to do.
#[derive(Clone, Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// ALPN of a port or connection that speaks HTTP/2 and HTTP/1.1.
pub const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];
/// ALPN for HTTP/2 only.
pub const HTTP2: &[&[u8]] = &[b"h2"];
/// ALPN for HTTP/1.1 only.
pub const HTTP1: &[&[u8]] = &[b"http/1.1"];

/// The SHA-256 digest of a certificate's DER form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of the certificate `der`.
    pub fn of(der: &[u8]) -> Pin {
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, der);
        let mut pin = [0; 32];
        pin.copy_from_slice(digest.as_ref());
        Pin(pin)
    }

    /// The pin of the first certificate in `pem`.
    ///
    /// # Errors
    /// When there is no certificate in `pem`.
    pub fn of_pem(pem: &[u8]) -> Result<Pin, TlsError> {
        let chain = certificates(pem)?;
        Ok(Pin::of(&chain[0]))
    }
}

impl fmt::Display for Pin {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Pin {
    type Err = TlsError;

    /// Reads 64 hexadecimal digits, with or without colons, perhaps after `sha256:`.
    fn from_str(text: &str) -> Result<Pin, TlsError> {
        let wrong = || {
            TlsError(format!(
                "`{text}` is no certificate pin; give the SHA-256 digest of the certificate \
                 as 64 hexadecimal digits"
            ))
        };
        let digits: Vec<u32> = text
            .strip_prefix("sha256:")
            .unwrap_or(text)
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).ok_or_else(wrong))
            .collect::<Result<_, _>>()?;
        let mut pin = [0; 32];
        if digits.len() != 64 {
            return Err(wrong());
        }
        for (byte, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (pair[0] << 4 | pair[1]) as u8;
        }
        Ok(Pin(pin))
    }
}

/// Whom a TLS client believes.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Also the authorities in this PEM text, beside those of the system.
    pub extra_roots: Option<Vec<u8>>,
    /// Only the certificate with this pin, whatever its name, dates and issuer: for
    /// self-signed certificates. Overrides everything else.
    pub pin: Option<Pin>,
    /// Anyone. The connection is then secret but not authenticated.
    pub insecure: bool,
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| TlsError(format!("the certificate is not valid PEM: {e}")))?;
    if chain.is_empty() {
        return Err(TlsError(
            "no certificate found; expected PEM text with `-----BEGIN CERTIFICATE-----`".into(),
        ));
    }
    Ok(chain)
}

/// A server's configuration from its certificate chain and key, both PEM, and the ALPN
/// names it offers, best first.
///
/// # Errors
/// When either is missing or malformed, or the key is not the certificate's.
pub fn server(
    certificate: &[u8],
    key: &[u8],
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| {
        TlsError(format!("no private key found ({e}); expected PEM text with `PRIVATE KEY`"))
    })?;
    server_config(chain, key, alpn)
}

/// The same from a chain, leaf first, and its key, both already read.
///
/// # Errors
/// When the key is not the certificate's.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError(format!("TLS cannot be set up: {e}")))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| {
            TlsError(format!("certificate and key cannot be used ({e}); do they belong together?"))
        })?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client's configuration: whom it believes, and the ALPN names it offers, best first.
///
/// # Errors
/// When the extra roots are malformed, or there is no root at all.
pub fn client(trust: &Trust, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError(format!("TLS cannot be set up: {e}")))?;
    let mut config = if trust.pin.is_some() || trust.insecure {
        let verifier = Arc::new(PinVerifier { pin: trust.pin, provider });
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    } else {
        builder.with_root_certificates(roots(trust.extra_roots.as_deref())?).with_no_client_auth()
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn roots(extra: Option<&[u8]>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Systems carry some certificates that cannot be parsed; the others still count.
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(pem) = extra {
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(|e| {
                TlsError(format!("a certificate authority that was given cannot be used: {e}"))
            })?;
        }
    }
    if roots.is_empty() {
        return Err(TlsError(
            "this system has no certificate authorities; install ca-certificates, or give a \
             CA file or a certificate pin"
                .into(),
        ));
    }
    Ok(roots)
}

/// Believes one certificate, or (without a pin) every one. That the peer holds the
/// certificate's key is verified in either case.
#[derive(Debug)]
struct PinVerifier {
    pin: Option<Pin>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.pin {
            Some(pin) if !bool::from(Pin::of(end_entity).0.ct_eq(&pin.0)) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_what_it_writes_and_says_what_it_wants() {
        let pin = Pin::of(b"certificate");
        assert_eq!(pin.to_string().parse::<Pin>().unwrap(), pin);
        assert_eq!(format!("sha256:{pin}").parse::<Pin>().unwrap(), pin);
        let error = "abc".parse::<Pin>().unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal digits"), "{error}");
        assert!("é".repeat(64).parse::<Pin>().is_err());
    }

    #[test]
    fn missing_parts_are_named() {
        let error = server(b"", b"", BOTH).unwrap_err().to_string();
        assert!(error.contains("no certificate found"), "{error}");
    }
}
