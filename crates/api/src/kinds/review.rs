//! Kinds that are asked and answered, and not kept: who may do what, and who somebody is.

use super::{Kind, plain::PLAIN};

const AUTHORIZATION: Kind = Kind { group: "authorization.k8s.io", namespaced: false, ..PLAIN };
const AUTHENTICATION: Kind = Kind { group: "authentication.k8s.io", namespaced: false, ..PLAIN };

/// They can be created, and nothing else.
#[must_use]
pub fn reviews() -> &'static [Kind] {
    static REVIEWS: [Kind; 6] = [
        Kind {
            kind: "SelfSubjectReview",
            plural: "selfsubjectreviews",
            singular: "selfsubjectreview",
            ..AUTHENTICATION
        },
        Kind {
            kind: "TokenReview",
            plural: "tokenreviews",
            singular: "tokenreview",
            ..AUTHENTICATION
        },
        Kind {
            kind: "LocalSubjectAccessReview",
            plural: "localsubjectaccessreviews",
            singular: "localsubjectaccessreview",
            namespaced: true,
            ..AUTHORIZATION
        },
        Kind {
            kind: "SelfSubjectAccessReview",
            plural: "selfsubjectaccessreviews",
            singular: "selfsubjectaccessreview",
            ..AUTHORIZATION
        },
        Kind {
            kind: "SelfSubjectRulesReview",
            plural: "selfsubjectrulesreviews",
            singular: "selfsubjectrulesreview",
            ..AUTHORIZATION
        },
        Kind {
            kind: "SubjectAccessReview",
            plural: "subjectaccessreviews",
            singular: "subjectaccessreview",
            ..AUTHORIZATION
        },
    ];
    &REVIEWS
}

impl Kind {
    /// Whether it is one of [`reviews`].
    #[must_use]
    pub fn is_review(&self) -> bool {
        reviews().iter().any(|review| (review.group, review.kind) == (self.group, self.kind))
    }
}
