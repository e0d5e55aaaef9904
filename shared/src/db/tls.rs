//! TLS to Postgres, by rustls, as `sslmode` in the database's URL says, with the meaning that libpq gives it:
//! `disable`; `prefer` (the default: encrypted where the server can) and `require` do not ask who the server is;
//! `verify-full` does, by the platform's certificates or those of the file `sslrootcert`.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use percent_encoding::percent_decode_str;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use super::with_cause;

/// Makes connections to Postgres encrypted. Clones share the configuration.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

/// Reads the database's URL; the error is a sentence to be read after the variable's name.
pub(super) fn read_url(text: &str) -> Result<(tokio_postgres::Config, Tls), String> {
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    let (mut mode, mut root) = (None, None);
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let value = |value| percent_decode_str(value).decode_utf8_lossy().into_owned();
        match pair.split_once('=') {
            Some(("sslmode", text)) => mode = Some(value(text)),
            Some(("sslrootcert", text)) => root = Some(value(text)),
            _ => rest.push(pair.to_owned()),
        }
    }
    let tls = match (mode.as_deref(), root) {
        (Some("verify-full"), root) => Tls::verified(root.as_deref())?,
        (None | Some("disable" | "prefer" | "require"), None) => Tls::unverified(),
        (None | Some("disable" | "prefer" | "require"), Some(_)) => {
            return Err("has sslrootcert, which only sslmode=verify-full looks at".to_owned());
        }
        (Some(other), _) => {
            return Err(format!("has sslmode={other}, and must be disable, prefer, require or verify-full"));
        }
    };
    // What tokio-postgres knows of it.
    let known = mode.map(|mode| if mode == "verify-full" { "require".to_owned() } else { mode });
    rest.extend(known.map(|mode| format!("sslmode={mode}")));
    let url = if rest.is_empty() { before.to_owned() } else { format!("{before}?{}", rest.join("&")) };
    match url.parse() {
        Ok(config) => Ok((config, tls)),
        Err(error) => Err(format!("is not a Postgres URL: {}", with_cause(&error))),
    }
}

impl Tls {
    /// Encrypted, whoever the server is.
    fn unverified() -> Self {
        let provider = Arc::new(ring::default_provider());
        let anybody = Arc::new(Anybody(Arc::clone(&provider)));
        let config = builder(provider).dangerous().with_custom_certificate_verifier(anybody);
        Self(Arc::new(config.with_no_client_auth()))
    }

    /// Encrypted, with the server that the URL names: by the certificates in this file, or the platform's.
    fn verified(root: Option<&str>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = root {
            let unreadable = |error: &dyn std::fmt::Display| format!("has sslrootcert={path}: {error}");
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
            if roots.is_empty() {
                return Err(unreadable(&"there is no certificate in it"));
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("has sslmode=verify-full without sslrootcert, and this machine has no \
                            certificates of its own"
                    .to_owned());
            }
        }
        let config = builder(Arc::new(ring::default_provider())).with_root_certificates(roots);
        Ok(Self(Arc::new(config.with_no_client_auth())))
    }
}

fn builder(provider: Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has what the default versions need")
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = Infallible;

    /// Also asked for where no handshake follows: a socket has no name that could be read.
    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Infallible> {
        Ok(Handshake { config: Arc::clone(&self.0), host: host.to_owned() })
    }
}

/// A handshake to be made.
pub(super) struct Handshake {
    config: Arc<ClientConfig>,
    host: String,
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let host = ServerName::try_from(self.host).map_err(io::Error::other)?;
            let stream = tokio_rustls::TlsConnector::from(self.config).connect(host, stream).await?;
            Ok(Encrypted(Box::new(stream)))
        })
    }
}

/// An encrypted connection.
pub(super) struct Encrypted<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::*;

    #[test]
    fn the_url_says_how_and_all_else_in_it_stays() {
        for (query, mode) in [
            ("", SslMode::Prefer),
            ("?sslmode=disable", SslMode::Disable),
            ("?sslmode=prefer&application_name=a%20b", SslMode::Prefer),
            ("?connect_timeout=7&sslmode=require", SslMode::Require),
            ("?sslmode=verify%2Dfull", SslMode::Require),
        ] {
            let (config, _) = read_url(&format!("postgres://u:p%40%2Fp@h:5/d{query}")).unwrap();
            assert_eq!(config.get_ssl_mode(), mode, "{query}");
            assert_eq!(config.get_password(), Some(b"p@/p".as_slice()));
            if query.contains("application_name") {
                assert_eq!(config.get_application_name(), Some("a b"));
            }
        }
        let (config, _) = read_url("host=h user=u password='p q' dbname=d").unwrap();
        assert_eq!(config.get_password(), Some(b"p q".as_slice()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_sentence() {
        for (url, sentence) in [
            ("postgres://h/d?sslmode=verify-ca", "must be disable, prefer, require or verify-full"),
            ("postgres://h/d?sslmode=require&sslrootcert=/x", "only sslmode=verify-full looks at"),
            ("postgres://h/d?sslmode=verify-full&sslrootcert=/nowhere.pem", "sslrootcert=/nowhere.pem"),
            ("postgres://h/d?colour=red", "not a Postgres URL"),
            ("nonsense", "not a Postgres URL"),
            ("mysql://h/d", "not a Postgres URL"),
        ] {
            let error = read_url(url).map(drop).unwrap_err();
            assert!(error.contains(sentence), "{url}: {error}");
        }
    }
}
