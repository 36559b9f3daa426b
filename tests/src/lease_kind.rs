/// The kind of lease that a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseKind {
    /// A Chromium for each lease.
    Exclusive,
    /// Many leases in one Chromium.
    Shared,
}

impl LeaseKind {
    /// Its word in a configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }
}

/// Makes two tests, `exclusive` and `shared`, of each function that takes a [`LeaseKind`].
#[macro_export]
macro_rules! for_both_kinds {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn exclusive() {
                super::$name($crate::LeaseKind::Exclusive).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn shared() {
                super::$name($crate::LeaseKind::Shared).await;
            }
        }
    )+};
}
