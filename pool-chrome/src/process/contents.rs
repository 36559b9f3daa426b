//! The contents of a Chromium's directories, and a search for what is not its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Default directory for downloads, below `HOME`.
pub(super) const DOWNLOADS: &str = "Downloads";

/// The default profile, below the user data directory.
const PROFILE: &str = "Default";

/// Describes the programs that pages of extensions may start. Chromium makes the directory and puts
/// nothing into it.
const NATIVE_HOSTS: &str = "NativeMessagingHosts";

/// Names of Chromium's entries in its user data directory.
const USER_DATA: &[&str] = &[
    "BrowserMetrics",
    "BrowserMetrics-spare.pma",
    "CaptchaProviders",
    "CertificateRevocation",
    "CookieReadinessList",
    "Crash Reports",
    "Crashpad",
    "Crowd Deny",
    "DawnCache",
    "DawnGraphiteCache",
    "DawnWebGPUCache",
    PROFILE,
    "DeferredBrowserMetrics",
    "Dictionaries",
    "FileTypePolicies",
    "First Run",
    "FirstPartySetsPreloaded",
    "GPUPersistentCache",
    "GrShaderCache",
    "GraphiteDawnCache",
    "Guest Profile",
    "Last Version",
    "Local State",
    "MEIPreload",
    NATIVE_HOSTS,
    "OnDeviceHeadSuggestModel",
    "OptGuideOnDeviceModel",
    "OptimizationGuideModelsManifest",
    "OriginTrials",
    "PKIMetadata",
    "PrivacySandboxAttestationsPreloaded",
    "ProbabilisticRevealTokenRegistry",
    "SSLErrorAssistant",
    "Safe Browsing",
    "SafetyTips",
    "ShaderCache",
    "SingletonCookie",
    "SingletonLock",
    "SingletonSocket",
    "Subresource Filter",
    "System Profile",
    "TpcdMetadata",
    "TrustTokenKeyCommitments",
    "Variations",
    "Webstore Downloads",
    "ZxcvbnData",
    "chrome_debug.log",
    "component_crx_cache",
    "extensions_crx_cache",
    "first_party_sets.db",
    "hyphen-data",
    "optimization_guide_model_store",
    "segmentation_platform",
];

/// Names of its entries in its profile.
const IN_PROFILE: &[&str] = &[
    "Account Web Data",
    "AccountBookmarks",
    "Accounts",
    "Affiliation Database",
    "AggregationService",
    "AttributionReporting",
    "AutofillAiModelCache",
    "AutofillStrikeDatabase",
    "BookmarkMergedSurfaceOrdering",
    "Bookmarks",
    "BudgetDatabase",
    "Cache",
    "ClientCertificates",
    "Code Cache",
    "Collaboration",
    "Conversions",
    "Cookies",
    "DIPS",
    "DataSharing",
    "DawnCache",
    "DawnGraphiteCache",
    "DawnWebGPUCache",
    "Download Service",
    "DownloadMetadata",
    "Extension Cookies",
    "Extension Rules",
    "Extension Scripts",
    "Extension State",
    "Favicons",
    "Feature Engagement Tracker",
    "File System",
    "GCM Store",
    "GPUCache",
    "History",
    "IndexedDB",
    "InterestGroups",
    "LOCK",
    "LOG",
    "LOG.old",
    "Local Storage",
    "Login Data",
    "Login Data For Account",
    "Media Cache",
    "MediaDeviceSalts",
    "Network",
    "Network Action Predictor",
    "Network Persistent State",
    "NetworkDataMigrated",
    "PersistentOriginTrials",
    "Platform Notifications",
    "Preferences",
    "PreferredApps",
    "PrivateAggregation",
    "QuotaManager",
    "README",
    "Reporting and NEL",
    "SCT Auditing Pending Reports",
    "Safe Browsing Cookies",
    "Safe Browsing Network",
    "Secure Preferences",
    "Segmentation Platform",
    "ServerCertificate",
    "Service Worker",
    "Session Storage",
    "Sessions",
    "Shared Dictionary",
    "SharedStorage",
    "Shortcuts",
    "Site Characteristics Database",
    "Storage",
    "Sync Data",
    "Top Sites",
    "TransportSecurity",
    "Trust Tokens",
    "VideoDecodeStats",
    "Visited Links",
    "Web Data",
    "WebRTC Logs",
    "WebStorage",
    "WebrtcVideoStats",
    "blob_storage",
    "chrome_cart_db",
    "commerce_subscription_db",
    "coupon_db",
    "databases",
    "declarative_performance_observer.db",
    "discount_infos_db",
    "discounts_db",
    "heavy_ad_intervention_opt_out.db",
    "optimization_guide_hint_cache_store",
    "parcel_tracking_db",
    "passkey_enclave_state",
    "power_bookmarks",
    "shared_proto_db",
    "trusted_vault.pb",
];

/// Names of the entries that it and its libraries make below `HOME`.
const IN_HOME: &[&str] = &[".cache", ".config", ".dbus", ".local", ".pki"];

/// Prefixes of files that are written under another name first, and of entries in `TMPDIR`.
const TEMPORARY: [&str; 4] =
    ["org.chromium.", ".org.chromium.", "com.google.Chrome", ".com.google.Chrome"];

/// Prefixes of entries that are made only in `TMPDIR`.
const IN_TEMP: [&str; 3] = ["scoped_dir", "dconf", "dbus-"];

/// The directories of one Chromium.
#[derive(Clone, Debug)]
pub(super) struct Directories {
    pub(super) user_data_dir: PathBuf,
    pub(super) home: PathBuf,
    pub(super) temp_dir: PathBuf,
}

/// The top-level entries of each directory of a Chromium, at one moment.
///
/// They are judged by name: anything inside a directory of Chromium's counts as Chromium's. The
/// rules about paths keep anything else from being written there; this is a second check.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents(BTreeSet<Entry>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: PathBuf,
    is_known: bool,
}

impl Contents {
    pub(super) fn of(directories: &Directories) -> Self {
        let profile = directories.user_data_dir.join(PROFILE);
        let native_hosts = directories.user_data_dir.join(NATIVE_HOSTS);
        let mut contents = Self::default();
        contents.list(&directories.user_data_dir, |name| is_of(USER_DATA, name));
        contents.list(&profile, |name| is_of(IN_PROFILE, name));
        contents.list(&native_hosts, |_| false);
        contents.list(&directories.home, |name| IN_HOME.contains(&name));
        contents
            .list(&directories.temp_dir, |name| begins(&TEMPORARY, name) || begins(&IN_TEMP, name));
        contents
    }

    fn list(&mut self, directory: &Path, is_known: impl Fn(&str) -> bool) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_known = entry.file_name().to_str().is_some_and(&is_known);
            self.0.insert(Entry { path: entry.path(), is_known });
        }
    }

    /// Returns an entry that was not there before and is not Chromium's.
    pub(super) fn stranger(self, before: &Self) -> Option<PathBuf> {
        let mut new = self.0.into_iter().filter(|entry| !before.0.contains(entry));
        new.find(|entry| !entry.is_known).map(|entry| entry.path)
    }
}

/// Returns `true` if a name is one of these, or one that a database or file has next to it while it
/// is being written.
fn is_of(known: &[&str], name: &str) -> bool {
    const BESIDE: [&str; 5] = ["-journal", "-wal", "-shm", ".bad", ".tmp"];
    let plain = BESIDE.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    known.contains(&plain)
        || begins(&TEMPORARY, name)
        || name.split_once('~').is_some_and(|(plain, rest)| {
            known.contains(&plain) && rest.starts_with("RF") && rest.ends_with(".TMP")
        })
}

fn begins(beginnings: &[&str], name: &str) -> bool {
    beginnings.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(root: &Path) -> Directories {
        let [user_data_dir, home, temp_dir] =
            ["profile", "home", "tmp"].map(|name| root.join(name));
        for directory in
            [&user_data_dir.join(PROFILE), &user_data_dir.join(NATIVE_HOSTS), &home, &temp_dir]
        {
            fs::create_dir_all(directory).unwrap();
        }
        Directories { user_data_dir, home, temp_dir }
    }

    #[test]
    fn what_chromium_makes_later_is_no_stranger() {
        let root = tempfile::tempdir().unwrap();
        let directories = directories(root.path());
        let before = Contents::of(&directories);
        for name in [
            "profile/Default/Shortcuts-journal",
            "profile/Default/Preferences~RF12ab.TMP",
            "profile/.org.chromium.Chromium.aB3",
            "profile/ShaderCache",
            "home/.pki",
            "tmp/org.chromium.Chromium.x",
        ] {
            fs::write(root.path().join(name), "").unwrap();
        }
        assert_eq!(Contents::of(&directories).stranger(&before), None);
    }

    #[test]
    fn anything_else_is_a_stranger_unless_it_was_there_before() {
        for name in [
            "profile/NativeMessagingHosts/evil.json",
            "profile/External Extensions",
            "profile/left.txt",
            "profile/Default/left.txt",
            "home/.bashrc",
            "tmp/left.txt",
        ] {
            let root = tempfile::tempdir().unwrap();
            let directories = directories(root.path());
            let before = Contents::of(&directories);
            fs::write(root.path().join(name), "").unwrap();
            let after = Contents::of(&directories);
            assert_eq!(after.clone().stranger(&before), Some(root.path().join(name)));
            assert_eq!(after.clone().stranger(&after), None);
        }
    }
}
