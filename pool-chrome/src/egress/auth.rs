use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

/// A user name and a password. Neither is ever printed.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) username: SecretString,
    pub(super) password: SecretString,
}

impl Credentials {
    /// The value of `Proxy-Authorization`.
    pub(super) fn basic(&self) -> HeaderValue {
        let pair = format!("{}:{}", self.username.expose_secret(), self.password.expose_secret());
        let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
        let mut value = HeaderValue::from_str(&value).expect("base64 is visible ASCII");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.username.expose_secret() == other.username.expose_secret()
            && self.password.expose_secret() == other.password.expose_secret()
    }
}

impl Eq for Credentials {}
