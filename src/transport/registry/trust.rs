//! Whom TLS believes: the machine's authorities, and those that docker's `certs.d` has for one registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::error::{RegistryError, Result};

/// Where distributions keep the authorities of the machine: Debian, Fedora, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The folders that docker keeps a registry's certificates in: those of the machine and those of the user.
pub(super) fn folders(host: &str) -> Vec<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = set("XDG_CONFIG_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    let roots = [user.map(|user| user.join("docker/certs.d")), Some(PathBuf::from("/etc/docker/certs.d"))];
    let folders = roots.into_iter().flatten().map(|root| root.join(host));
    folders.filter(|folder| folder.is_dir()).collect()
}

/// What TLS with this registry believes.
pub(super) fn config(host: &str) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let bundle = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let bundle = bundle.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()));
    if let Some(bundle) = bundle {
        // A bundle may hold a certificate that the library does not read; the others count.
        roots.add_parsable_certificates(certificates(&bundle)?);
    }
    for folder in folders(host) {
        let unreadable = |error: std::io::Error| unusable(&folder, &error);
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "crt") {
                for certificate in certificates(&path)? {
                    roots.add(certificate).map_err(|error| unusable(&path, &error))?;
                }
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(Path::new("TLS"), &error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    all.map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Configuration { what: path.display().to_string(), why: why.to_string() }
}
