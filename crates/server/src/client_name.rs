//! The name in a client's certificate, for services that know users.

use etcd::ClientCommonName;
use listen::PeerCertificates;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Adds [`ClientCommonName`] to a request whose client has shown a certificate with a common name.
pub(crate) fn name_client<B>(mut request: http::Request<B>) -> http::Request<B> {
    let shown = request.extensions().get::<PeerCertificates>();
    let name = shown.and_then(|chain| common_name(chain.first()?));
    if let Some(name) = name {
        request.extensions_mut().insert(ClientCommonName(name.into()));
    }
    request
}

/// Of the certificate's subject. The certificate is verified already.
fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(name: Option<&str>) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        certificate.der().to_vec()
    }

    #[test]
    fn a_client_is_named_by_its_certificate() {
        for (name, want) in [(Some("alice"), Some("alice")), (Some(""), None), (None, None)] {
            assert_eq!(common_name(&certificate(name)).as_deref(), want, "{name:?}");
        }
        assert_eq!(common_name(b"no certificate"), None);
    }
}
