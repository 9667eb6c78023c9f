//! The cluster's authority at work: certificates of nodes are renewed here, and a replica's own are shown.

use crate::{
    proto::cluster::{
        ListCertificatesRequest, ListCertificatesResponse, NamedCertificate,
        RenewCertificateRequest, RenewCertificateResponse,
        certificate_service_server::CertificateService,
    },
    registry::Clock,
};
use api::caller::Identity;
use pki::{Authority, Moment};
use std::{path::PathBuf, sync::Arc};
use tonic::{Request, Response, Status};

/// What a replica has to do with certificates; the default is nothing.
#[derive(Debug, Clone, Default)]
pub struct Pki {
    /// What is shown to nodes, and who is trusted there; without it, they are asked without TLS.
    pub kubelets: Option<Arc<rustls::ClientConfig>>,
    /// Signs for nodes.
    pub authority: Option<Arc<Authority>>,
    /// What this replica shows: where, and in which file.
    pub certificates: Vec<(String, PathBuf)>,
    /// Private key of service accounts, PEM: given to replicas that join.
    pub service_account_key_file: Option<PathBuf>,
    /// What all replicas are configured with, for those that join.
    pub shared_configuration: String,
}

pub(crate) struct Certificates {
    pub(crate) pki: Pki,
    pub(crate) clock: Clock,
}

impl Certificates {
    fn now(&self) -> Moment {
        Moment(i64::try_from((self.clock)().0 / 1_000_000).unwrap_or(i64::MAX))
    }
}

/// The user who asks, as was found out before.
fn user<T>(request: &Request<T>) -> Result<String, Status> {
    let found = request.extensions().get::<Identity>().map(|who| who.user.clone());
    found.ok_or_else(|| Status::unauthenticated("who asks must show a certificate"))
}

/// Signs for the key of a request what a certificate that is still valid says.
fn renewed(
    authority: &Authority,
    user: &str,
    request: &RenewCertificateRequest,
    now: Moment,
) -> Result<String, Status> {
    let invalid = |error: pki::PkiError| Status::invalid_argument(error.to_string());
    // Whoever has stolen an administrator's certificate has it until it expires, and not for ever.
    if pki::names::node_of(user).is_none() {
        return Err(Status::permission_denied(format!(
            "user {user:?} is no node, and only nodes renew"
        )));
    }
    let old = authority.check(request.certificate.as_bytes(), now);
    let old = old.map_err(|error| Status::permission_denied(error.to_string()))?;
    if old.profile.common_name != user {
        let name = &old.profile.common_name;
        return Err(Status::permission_denied(format!(
            "user {user:?} cannot renew the certificate of {name:?}"
        )));
    }
    let key = pki::Key::of_request(&request.signing_request).map_err(invalid)?;
    authority.sign(&old.profile, &key, now, old.lifetime()).map_err(invalid)
}

#[tonic::async_trait]
impl CertificateService for Certificates {
    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let user = user(&request)?;
        let authority = self.pki.authority.as_deref();
        let authority = authority.ok_or_else(|| {
            Status::failed_precondition("this replica does not have the authority's key")
        })?;
        let certificate = renewed(authority, &user, request.get_ref(), self.now())?;
        tracing::info!(user, "certificate renewed");
        Ok(Response::new(RenewCertificateResponse { certificate }))
    }

    async fn list_certificates(
        &self,
        _: Request<ListCertificatesRequest>,
    ) -> Result<Response<ListCertificatesResponse>, Status> {
        let certificates = self.pki.certificates.iter().map(|(name, file)| {
            let read = pki::read(file).and_then(|pem| pki::certificate_pem(&pem, name));
            let (certificate, error) = match read {
                Ok(pem) => (pem, String::new()),
                Err(error) => (String::new(), error.to_string()),
            };
            NamedCertificate { name: name.clone(), certificate, error }
        });
        Ok(Response::new(ListCertificatesResponse { certificates: certificates.collect() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::Profile;
    use std::time::Duration;
    use tonic::Code;

    const NOW: Moment = Moment(1_795_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_node_renews_what_is_its_own_and_valid() {
        let authority = Authority::create("kubernetes", NOW, HOUR * 100).unwrap();
        let other = Authority::create("kubernetes", NOW, HOUR * 100).unwrap();
        let node = "system:node:a";
        let profile = Profile::client(node, &["system:nodes"]);
        let serving = Profile {
            organizations: profile.organizations.clone(),
            ..Profile::server(node, vec!["a".to_owned(), "10.0.0.1".to_owned()])
        };
        let own = authority.issue(&profile, NOW, HOUR).unwrap();
        let served = authority.issue(&serving, NOW, HOUR).unwrap();
        let admin = Profile::client("admin", &["system:masters"]);
        let admin = authority.issue(&admin, NOW, HOUR).unwrap();
        let foreign = other.issue(&profile, NOW, HOUR).unwrap();
        let asked = pki::request(&pki::new_key().unwrap(), "system:masters").unwrap();
        let soon = NOW.after(HOUR / 2);
        for (name, user, old, asked, now, want) in [
            ("a client's", node, &own, asked.as_str(), soon, Ok(&profile)),
            ("a server's", node, &served, &asked, soon, Ok(&serving)),
            ("of another", "system:node:b", &own, &asked, soon, Err(Code::PermissionDenied)),
            ("an administrator's", "admin", &admin, &asked, soon, Err(Code::PermissionDenied)),
            ("of a stranger", node, &foreign, &asked, soon, Err(Code::PermissionDenied)),
            ("too late", node, &own, &asked, NOW.after(HOUR * 2), Err(Code::PermissionDenied)),
            ("for no key", node, &own, "key", soon, Err(Code::InvalidArgument)),
        ] {
            let request = RenewCertificateRequest {
                certificate: old.clone(),
                signing_request: asked.to_owned(),
            };
            let answer = renewed(&authority, user, &request, now);
            match (answer, want) {
                (Ok(pem), Ok(want)) => {
                    let new = authority.check(pem.as_bytes(), now).unwrap();
                    assert_eq!(new.profile, *want, "{name}");
                    assert_eq!(new.lifetime(), HOUR, "{name}");
                    assert!(new.not_after > NOW.after(HOUR), "{name}");
                }
                (Err(status), Err(want)) => assert_eq!(status.code(), want, "{name}: {status}"),
                (found, want) => panic!("{name}: {found:?}, not {want:?}"),
            }
        }
    }
}
