//! Certificates of the cluster's authority: renewed by a replica, and what replicas show.

use crate::{
    Attempt, ClientError,
    endpoints::Endpoints,
    proto::cluster::{
        ListCertificatesRequest, RenewCertificateRequest,
        certificate_service_client::CertificateServiceClient,
    },
    transport::{Bearer, channel},
};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

async fn connect(
    endpoints: &Endpoints,
    url: &str,
) -> Result<CertificateServiceClient<InterceptedService<Channel, Bearer>>, String> {
    let tuned = channel(url, &endpoints.access, |endpoint| {
        endpoint.connect_timeout(endpoints.connect_timeout).timeout(endpoints.deadline)
    });
    tuned.await.map(CertificateServiceClient::new)
}

/// A new certificate, PEM, in the place of one that is still valid, for the key of a signing request; from the
/// first replica that signs.
///
/// # Errors
/// [`ClientError::Unreachable`] with every endpoint and why.
pub async fn renew(
    endpoints: &Endpoints,
    certificate: &str,
    signing_request: &str,
) -> Result<String, ClientError> {
    let mut attempts = Vec::new();
    for url in &endpoints.urls {
        let request = RenewCertificateRequest {
            certificate: certificate.to_owned(),
            signing_request: signing_request.to_owned(),
        };
        let error = match connect(endpoints, url).await {
            Ok(mut client) => match client.renew_certificate(request).await {
                Ok(answer) => return Ok(answer.into_inner().certificate),
                Err(status) => status.message().to_owned(),
            },
            Err(error) => error,
        };
        attempts.push(Attempt { endpoint: url.clone(), error });
    }
    Err(ClientError::Unreachable { attempts })
}

/// One certificate that a replica shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Where, such as `api`.
    pub name: String,
    /// PEM, or why it cannot be read.
    pub certificate: Result<String, String>,
}

/// What the replica at `url` shows.
///
/// # Errors
/// [`ClientError::Unreachable`] when it does not answer.
pub async fn list(endpoints: &Endpoints, url: &str) -> Result<Vec<Named>, ClientError> {
    let asked = async {
        let mut client = connect(endpoints, url).await?;
        let answer = client.list_certificates(ListCertificatesRequest {}).await;
        answer.map_err(|status| status.message().to_owned())
    };
    let answer = asked.await.map_err(|error| ClientError::Unreachable {
        attempts: vec![Attempt { endpoint: url.to_owned(), error }],
    })?;
    let named = answer.into_inner().certificates.into_iter().map(|found| Named {
        name: found.name,
        certificate: if found.error.is_empty() { Ok(found.certificate) } else { Err(found.error) },
    });
    Ok(named.collect())
}
