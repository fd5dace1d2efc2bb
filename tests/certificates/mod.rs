//! A certificate of a CA of the test's own, for a server that speaks TLS.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A CA, and a server's certificate for one name.
pub struct Certificates {
    /// `ca.pem`, `server.pem` and `key.pem`.
    pub folder: TempDir,
}

impl Certificates {
    /// For a server of this name or address.
    pub fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "CA of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
        for (file, text) in [("ca.pem", ca), ("server.pem", signed.pem()), ("key.pem", own.serialize_pem())] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        Self { folder }
    }

    /// The path of one of them.
    pub fn path(&self, file: &str) -> String {
        self.folder.path().join(file).to_string_lossy().into_owned()
    }
}
