//! What a registry, or the way to it, may fail with: a sentence, what to do about it, and never a secret.

use std::error::Error;

use hyper::StatusCode;
use rustls::CertificateError;

use crate::diagnose::{Diagnose, Exit, shown};
use crate::engine::tls;
use crate::oci::Digest;

/// The result of what a registry is asked.
pub type Result<T> = std::result::Result<T, RegistryError>;

/// So much of what a registry says is quoted.
const QUOTED: usize = 200;

/// Why a registry did not give or take something.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name leads to no machine.
    #[error("there is no host {host}")]
    UnknownHost {
        /// The registry's host.
        host: String,
    },
    /// Nobody answers there.
    #[error("no registry answers at {host}: {why}")]
    Unreachable {
        /// The registry's host.
        host: String,
        /// The operating system's words.
        why: String,
        /// True where somebody is there, and ended the connection before TLS had begun.
        at_handshake: bool,
    },
    /// Its certificate is not believed, or it speaks no TLS.
    #[error("{host} is not trusted: {why}")]
    Untrusted {
        /// The registry's host.
        host: String,
        /// What is wrong with it.
        why: String,
        /// True where it speaks TLS, and its certificate is what is wrong.
        certificate: bool,
    },
    /// It wants a password, and there is none, or another one.
    #[error("{host} {}", match user { Some(user) => format!("does not accept the password of {}", shown(user)), None => "wants a login".to_owned() })]
    Login {
        /// The registry's host.
        host: String,
        /// Whose password was refused.
        user: Option<String>,
        /// What docker's configuration calls the registry.
        server: String,
    },
    /// It knows who asks, and does not let them.
    #[error("{host} does not let {who} {act}{said}")]
    Denied {
        /// The registry's host.
        host: String,
        /// The user, or `anybody`.
        who: String,
        /// What was to be done.
        act: String,
        /// What it says, with a colon before it.
        said: String,
    },
    /// Something else answers there.
    #[error("{host} is no registry: it answers {status} where a registry says that it is one (/v2/)")]
    NoRegistry {
        /// The registry's host.
        host: String,
        /// The status.
        status: StatusCode,
    },
    /// Something has the name, and it is no image.
    #[error("{name} is no image: {what}")]
    NoImage {
        /// The image's name.
        name: String,
        /// What it is.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// There is no such repository, tag or blob.
    #[error("{host} has no {what}{said}")]
    Absent {
        /// The registry's host.
        host: String,
        /// What was asked for.
        what: String,
        /// What it says, with a colon before it.
        said: String,
    },
    /// It has no room, or takes nothing of this size.
    #[error("{host} does not take {what}{said}")]
    Full {
        /// The registry's host.
        host: String,
        /// What was to be written.
        what: String,
        /// What it says, with a colon before it.
        said: String,
    },
    /// It answered, and this is no answer to what was asked.
    #[error("{host} answered {status} when asked to {act}{said}")]
    Answered {
        /// The registry's host.
        host: String,
        /// The status.
        status: StatusCode,
        /// What was asked.
        act: String,
        /// What it says, with a colon before it.
        said: String,
    },
    /// Nothing moved for too long.
    #[error("{host} said nothing for {seconds} s when asked to {act}")]
    Silent {
        /// The registry's host.
        host: String,
        /// What was asked.
        act: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It broke off.
    #[error("{host} did not finish when asked to {act}: {why}")]
    Lost {
        /// The registry's host.
        host: String,
        /// What was asked.
        act: String,
        /// What happened.
        why: String,
    },
    /// What it sends cannot be what it says.
    #[error("{host} sent {what} that is not what it should be: {why}")]
    Malformed {
        /// The registry's host.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes whose digest is another one.
    #[error("{host} sent other bytes for {wanted}: their digest is {found}")]
    WrongBytes {
        /// The registry's host.
        host: String,
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// It says that it took something else than what it was sent.
    #[error("{host} did not keep {what} as it was sent: {why}")]
    NotKept {
        /// The registry's host.
        host: String,
        /// What was sent.
        what: String,
        /// What was seen.
        why: String,
    },
    /// The image to be sent cannot be read, or is not what its digest says.
    #[error("the layer {digest} cannot be sent: {why}")]
    Unsendable {
        /// The blob.
        digest: Digest,
        /// What happened.
        why: String,
    },
    /// An index without what fits.
    #[error("{name} has no image for {wanted}")]
    Platform {
        /// The image.
        name: String,
        /// The platform.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// Docker's configuration, a credential helper or a certificate that cannot be used.
    #[error("{what} cannot be used: {why}")]
    Configuration {
        /// The file or program.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A name that cannot be written to.
    #[error("`docker://{name}` cannot be written: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Diagnose for RegistryError {
    fn exit(&self) -> Exit {
        match self {
            Self::UnknownHost { .. }
            | Self::NoRegistry { .. }
            | Self::NoImage { .. }
            | Self::Absent { .. }
            | Self::Malformed { .. }
            | Self::WrongBytes { .. }
            | Self::Platform { .. }
            | Self::Configuration { .. }
            | Self::Name { .. }
            | Self::Unsendable { .. } => Exit::Usage,
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::Login { .. }
            | Self::Denied { .. }
            | Self::Full { .. }
            | Self::Answered { .. }
            | Self::Lost { .. }
            | Self::Silent { .. }
            | Self::NotKept { .. } => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownHost { .. } => {
                "see how it is spelt, and whether this machine's DNS knows it".to_owned()
            }
            Self::Unreachable { at_handshake: true, .. } => {
                "see its log; a registry without TLS is named with --insecure-registry".to_owned()
            }
            Self::Unreachable { .. } => "see that it runs, and that nothing is in the way".to_owned(),
            Self::Untrusted { host, .. } => format!(
                "put its authority's certificate into /etc/docker/certs.d/{host}/ca.crt; a registry without TLS is named with --insecure-registry"
            ),
            Self::Login { user: None, server, .. } => format!("run `docker login {server}`"),
            Self::Login { server, .. } => format!("run `docker login {server}` again"),
            Self::Denied { .. } => {
                "see what this user may do there, and how the repository is spelt".to_owned()
            }
            Self::NoRegistry { .. } => {
                "see how host and port are spelt: what answers there is another kind of server, or a proxy"
                    .to_owned()
            }
            Self::NoImage { hint, .. } => (*hint).to_owned(),
            Self::Absent { .. } => "see how repository and tag are spelt".to_owned(),
            Self::Full { .. } => "make room there, or have its limit raised".to_owned(),
            Self::Answered { status, .. } if is_transient(*status) => "try again later".to_owned(),
            Self::Answered { .. } => "see the registry's log".to_owned(),
            Self::Lost { .. } => "run it again: what the registry has already is not sent again".to_owned(),
            Self::Silent { .. } => {
                "see the registry's log; TARSUP_REGISTRY_SILENCE has the seconds to wait".to_owned()
            }
            Self::Malformed { .. } | Self::WrongBytes { .. } => {
                "the registry is damaged, or somebody is in between: get the image from elsewhere".to_owned()
            }
            Self::NotKept { .. } => "the registry, or a proxy before it, is broken: see its log".to_owned(),
            Self::Unsendable { .. } => "build the image again, or copy it from elsewhere".to_owned(),
            Self::Platform { present, .. } => format!("there is {present}; name one by its digest"),
            Self::Configuration { .. } => "mend it, or run `docker login` again".to_owned(),
            Self::Name { .. } => "name it with a tag".to_owned(),
        })
    }
}

/// True for what may be otherwise in a moment.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504)
}

/// Why a request did not even get an answer.
pub(super) fn unanswered(host: &str, act: &str, error: &hyper_util::client::legacy::Error) -> RegistryError {
    let host = host.to_owned();
    if let Some(tls) = tls::inner(error) {
        let why = match tls {
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => "its certificate is signed by an authority that is not known here".to_owned(),
            rustls::Error::InvalidCertificate(
                CertificateError::ExpiredContext { .. } | CertificateError::Expired,
            ) => "its certificate has expired".to_owned(),
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForNameContext { .. } | CertificateError::NotValidForName,
            ) => "its certificate is for another name".to_owned(),
            rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
            other => other.to_string(),
        };
        let certificate = matches!(tls, rustls::Error::InvalidCertificate(_));
        return RegistryError::Untrusted { host, why, certificate };
    }
    let words = words(error);
    if error.is_connect() {
        if words.contains("dns error") {
            return RegistryError::UnknownHost { host };
        }
        let at_handshake = tls::ended(error);
        let why =
            if at_handshake { format!("it ends the connection where TLS begins ({words})") } else { words };
        return RegistryError::Unreachable { host, why, at_handshake };
    }
    RegistryError::Lost { host, act: act.to_owned(), why: words }
}

/// The innermost words of an error.
fn words(error: &(dyn Error + 'static)) -> String {
    let mut words = Vec::new();
    let mut at = Some(error);
    while let Some(error) = at {
        words.push(error.to_string());
        at = error.source();
    }
    // The outermost says no more than `client error (Connect)`.
    if words.len() > 1 {
        words.remove(0);
    }
    words.dedup();
    words.join(": ")
}

/// What an answer says of what went wrong, with a colon before it; nothing where it says nothing.
pub(super) fn said(body: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let first = document.as_ref().and_then(|document| document.pointer("/errors/0"));
    let text = |key: &str| first.and_then(|first| first.get(key)).and_then(serde_json::Value::as_str);
    let words: Vec<&str> =
        [text("code"), text("message")].into_iter().flatten().filter(|word| !word.is_empty()).collect();
    let words: String = words.join(", ").chars().take(QUOTED).collect();
    if words.is_empty() { words } else { format!(": {}", shown(&words)) }
}
