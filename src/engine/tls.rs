//! TLS to an engine, as docker's client has it: certificates from a folder, and what to say where one side does not believe
//! the other's.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{AlertDescription, CertificateError};
use time::OffsetDateTime;

use super::EngineError;

const CA: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// The certificates of a folder, as docker's client uses them: the CA there is the only one that is believed.
pub(super) fn config(folder: &Path) -> Result<rustls::ClientConfig, String> {
    let [ca, cert, key] = [CA, CERTIFICATE, KEY].map(|name| folder.join(name));
    let said = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, String> {
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| said(path, &error))
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(&ca)? {
        roots.add(certificate).map_err(|error| said(&ca, &error))?;
    }
    let own = certificates(&cert)?;
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| said(&key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(own, private)
        .map_err(|error| said(&cert, &error))
}

/// Why the first call over TLS failed, where that is what failed; `None` where nobody answered at all.
///
/// Asked of the first call alone: later the two have agreed, and what fails then is a connection.
pub(super) fn refusal(
    address: &str,
    folder: &Path,
    error: &(dyn Error + 'static),
    connected: bool,
) -> Option<EngineError> {
    let (ca, own) = (folder.join(CA), folder.join(CERTIFICATE));
    let (why, hint) = match inner(error) {
        Some(rustls::Error::InvalidCertificate(why)) => of_the_engine(why, &ca),
        Some(rustls::Error::AlertReceived(alert)) if is_about_a_certificate(*alert) => {
            (format!("it does not accept the certificate {} ({alert:?})", own.display()), own_hint(&own))
        }
        Some(other) => (other.to_string(), "see that it speaks TLS at this address".to_owned()),
        // An engine says in TLS 1.3 after the handshake that it does not know a client, and may hang up on the request before
        // what it said has arrived.
        None if connected => (
            format!(
                "it ended the connection before it answered, as one does that does not accept the certificate {}",
                own.display()
            ),
            own_hint(&own),
        ),
        None => return None,
    };
    Some(EngineError::Untrusted { address: address.to_owned(), why, hint })
}

/// What the engine's certificate is not, and what to do.
fn of_the_engine(why: &CertificateError, ca: &Path) -> (String, String) {
    let clocks = || "give the engine another certificate, or set the clock that is wrong".to_owned();
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            format!("its certificate is not signed by the authority in {}", ca.display()),
            format!(
                "see whose engine it is; if it is yours, put its authority's certificate into {}",
                ca.display()
            ),
        ),
        CertificateError::ExpiredContext { not_after, .. } => {
            (format!("its certificate has expired on {}", day(*not_after)), clocks())
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            (format!("its certificate is not valid before {}", day(*not_before)), clocks())
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            (
                format!("its certificate is for {}, not for {}", names.join(", "), expected.to_str()),
                "name the engine by a name that its certificate has".to_owned(),
            )
        }
        other => {
            (format!("its certificate is not accepted: {other}"), "give the engine another one".to_owned())
        }
    }
}

fn own_hint(own: &Path) -> String {
    format!("have {} signed by an authority that the engine was told of (its --tlscacert)", own.display())
}

/// The alerts by which a server turns a client's certificate down.
fn is_about_a_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            // A signature that does not fit the authority of that name.
            | AlertDescription::DecryptError
    )
}

/// The TLS library's error below those of the transport.
pub(crate) fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    below(error).find_map(|error| error.downcast_ref())
}

/// True where the other side was reached, and ended the connection: of an error that befell the making of one, while TLS began.
pub(crate) fn ended(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    below(error)
        .any(|error| error.downcast_ref::<io::Error>().is_some_and(|error| kinds.contains(&error.kind())))
}

/// An error and what it comes from: one of the operating system's kind hides another.
fn below<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error = *error;
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match held {
            Some(held) => Some(held),
            None => error.source(),
        }
    })
}

/// `DnsName("engine")` → `engine`: the library says names as its own types.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, inside)| inside.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| "a day too far".to_owned(), |at| at.date().to_string())
}
