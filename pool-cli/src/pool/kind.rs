use pool_core::{BoxError, Class, Driver, Policy, Rejection, RejectionKind, Request, async_trait};

use crate::config::LeaseKind;

/// The label of requests, and of classes, that names the kind of lease.
const LABEL: &str = "lease";

/// A spec that can be told what kind of lease a new browser is for.
pub trait KindSpec {
    /// The new browser is for leases of this kind.
    fn set_kind(&mut self, kind: LeaseKind);
}

/// A class for each kind of lease, where clients may choose: `?lease=shared`.
///
/// A browser of a profile is always exclusive, whatever is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    default: LeaseKind,
}

impl Kinds {
    /// Requests that name no kind get this one.
    #[must_use]
    pub fn new(default: LeaseKind) -> Self {
        Self { default }
    }
}

fn kind(word: &str) -> Option<LeaseKind> {
    match word {
        "exclusive" => Some(LeaseKind::Exclusive),
        "shared" => Some(LeaseKind::Shared),
        _ => None,
    }
}

#[async_trait]
impl<D> Policy<D> for Kinds
where
    D: Driver,
    D::Spec: KindSpec,
{
    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        let Some(word) = request.get(LABEL) else { return Ok(()) };
        if kind(word).is_none() {
            let message = "lease must be exclusive or shared";
            return Err(Rejection::new(RejectionKind::Invalid, "invalid_lease", message));
        }
        Ok(())
    }

    fn classify(&self, request: &Request, class: &mut Class) {
        // The default kind is the default class: it has the minimum, and no name of its own.
        if let Some(word) = request.get(LABEL)
            && kind(word) != Some(self.default)
            && request.get("profile").is_none()
        {
            class.insert(LABEL, word);
        }
    }

    fn configure(&self, class: &Class, spec: &mut D::Spec) -> Result<(), BoxError> {
        spec.set_kind(class.get(LABEL).and_then(kind).unwrap_or(self.default));
        Ok(())
    }

    fn watches(&self) -> bool {
        false
    }
}
