//! The tables and the reader, compared with the real thing.
//!
//! S06: every parameter of every command that a shared lease may send has been looked at.
//!
//! The protocol lists the parameters. Those that could be paths, addresses, ids or sizes must be
//! bounded in `parameters.rs`, judged by the rule of their command, or listed here with the reason
//! why they are harmless. A new one in a new Chromium fails the test until somebody has looked at
//! it.
//!
//! The envelope's reader understands each text as Chromium does: each text is sent to a real
//! Chromium both unchanged and rewritten, and the answers must be the same.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::envelope::{parse, write};
use super::lease_options::LeaseKind;
use super::parameters::PARAMETERS;
use super::rules::{Rule, SessionKind, rule};
use crate::process::{Chromium, Engine, LaunchOptions, Pipe, StateDir};
use crate::protocol;

/// Types whose values are ids that could be another lease's, and the rules that check them.
const OWNED: &[(&str, &[Rule])] = &[
    (
        "Target.TargetID",
        &[
            Rule::OwnTarget,
            Rule::CloseTarget,
            Rule::Attach,
            Rule::TargetInfo,
            Rule::WindowOfTarget,
            Rule::Detach,
            Rule::Message,
        ],
    ),
    ("Target.SessionID", &[Rule::Detach, Rule::Message]),
    ("Browser.WindowID", &[Rule::Window]),
    (
        "Browser.BrowserContextID",
        &[
            Rule::Context,
            Rule::CreateTarget,
            Rule::DisposeContext,
            Rule::Downloads,
            Rule::CancelDownload,
        ],
    ),
];

/// Parameters that the rule of their command checks.
const BY_RULE: &[(&str, &str, Rule)] = &[
    ("Browser.cancelDownload", "guid", Rule::CancelDownload),
    ("Browser.setDownloadBehavior", "downloadPath", Rule::Downloads),
    ("DOM.setFileInputFiles", "files[]", Rule::Files),
    ("Input.dispatchDragEvent", "data.files[]", Rule::Drag),
    ("Input.dispatchDragEvent", "data.items[].mimeType", Rule::Drag),
    ("Input.dispatchDragEvent", "data.items[].data", Rule::Drag),
    ("Page.navigate", "url", Rule::Navigate),
    ("Page.setDownloadBehavior", "downloadPath", Rule::DownloadPath),
    ("Target.createBrowserContext", "proxyServer", Rule::CreateContext),
    ("Target.createBrowserContext", "proxyBypassList", Rule::CreateContext),
    ("Target.createTarget", "url", Rule::CreateTarget),
    ("Target.sendMessageToTarget", "message", Rule::Message),
];

/// Types that are harmless wherever they stand.
const HARMLESS_TYPES: &[(&str, &str)] = &[
    ("Accessibility.AXNodeId", SESSION),
    ("CSS.SourceRange", RENDERER),
    ("CacheStorage.CacheId", CONTEXT),
    ("DOM.BackendNodeId", RENDERER),
    ("DOM.NodeId", SESSION),
    ("DOM.RGBA", RENDERER),
    ("DOM.StyleSheetId", SESSION),
    ("DOMStorage.SerializedStorageKey", CONTEXT),
    ("Debugger.BreakpointId", SESSION),
    ("Debugger.CallFrameId", SESSION),
    ("Debugger.Location", RENDERER),
    ("Debugger.LocationRange", RENDERER),
    ("Debugger.ScriptPosition", RENDERER),
    ("DeviceAccess.DeviceId", SESSION),
    ("DeviceAccess.RequestId", SESSION),
    ("Fetch.RequestId", SESSION),
    ("HeapProfiler.HeapSnapshotObjectId", RENDERER),
    ("IO.StreamHandle", SESSION),
    ("Input.TimeSinceEpoch", PAGE),
    ("LayerTree.LayerId", RENDERER),
    ("LayerTree.SnapshotId", SESSION),
    ("Network.Headers", TEXT),
    ("Network.LoaderId", PAGE),
    ("Network.RequestId", PAGE),
    ("Network.TimeSinceEpoch", PAGE),
    ("Page.FrameId", PAGE),
    ("Page.ScriptIdentifier", SESSION),
    ("Runtime.ExecutionContextId", RENDERER),
    ("Runtime.RemoteObjectId", SESSION),
    ("Runtime.ScriptId", RENDERER),
    ("Runtime.TimeDelta", RENDERER),
    ("Runtime.UniqueDebuggerId", RENDERER),
    ("ServiceWorker.RegistrationID", CONTEXT),
    ("Storage.SerializedStorageKey", CONTEXT),
    ("WebAudio.GraphObjectId", RENDERER),
    ("WebAuthn.AuthenticatorId", PAGE),
];

/// Known only to the session that it was given to.
const SESSION: &str = "an id of the session's own";
/// Renderers are not shared between contexts, and a sweep has tried every number.
const RENDERER: &str = "about the renderer, which the lease has to itself";
/// Looked up among the frames of the session's own page.
const PAGE: &str = "about the session's own page";
/// Storage is kept by context.
const CONTEXT: &str = "about what the lease's own contexts store";
/// Compared, shown or sent; it opens nothing.
const TEXT: &str = "text, by which nothing is opened";
/// Chromium checks them, as a sweep has shown.
const CHECKED: &str = "checked by Chromium";

#[rustfmt::skip]
const HARMLESS: &[(&str, &str, &str)] = &[
    ("Accessibility.getFullAXTree", "depth", RENDERER),
    ("Animation.getCurrentTime", "id", SESSION),
    ("Animation.releaseAnimations", "animations[]", SESSION),
    ("Animation.resolveAnimation", "animationId", SESSION),
    ("Animation.seekAnimations", "animations[] currentTime currentTimes[]", RENDERER),
    ("Animation.setPlaybackRate", "playbackRate", RENDERER),
    ("Animation.setTiming", "animationId duration delay", RENDERER),
    ("Audits.getEncodedResponse", "quality", RENDERER),
    ("Autofill.setAddresses", "addresses[].fields[].name addresses[].fields[].value", TEXT),
    ("Autofill.trigger", "address.fields[].name address.fields[].value", TEXT),
    ("Browser.grantPermissions", "origin", CONTEXT),
    ("Browser.setPermission", "origin embeddedOrigin", CONTEXT),
    ("CacheStorage.deleteEntry", "request", CONTEXT),
    ("CacheStorage.requestCacheNames", "securityOrigin", CONTEXT),
    ("CacheStorage.requestCachedResponse", "requestURL", CONTEXT),
    ("CacheStorage.requestEntries", "pathFilter", CONTEXT),
    ("DOM.describeNode", "depth", RENDERER),
    ("DOM.discardSearchResults", "searchId", SESSION),
    ("DOM.getDocument", "depth", RENDERER),
    ("DOM.getFlattenedDocument", "depth", RENDERER),
    ("DOM.getNodeForLocation", "x y", RENDERER),
    ("DOM.getSearchResults", "searchId fromIndex toIndex", SESSION),
    ("DOM.performSearch", "query", TEXT),
    ("DOM.pushNodeByPathToFrontend", "path", "a path in the document"),
    ("DOM.requestChildNodes", "depth", RENDERER),
    ("DOM.scrollIntoViewIfNeeded", "rect.x rect.y rect.width rect.height", RENDERER),
    ("DOM.setTextMarker", "start end", RENDERER),
    ("DOMDebugger.getEventListeners", "depth", RENDERER),
    ("DOMDebugger.removeXHRBreakpoint", "url", TEXT),
    ("DOMDebugger.setXHRBreakpoint", "url", TEXT),
    ("DOMStorage.clear", "storageId.securityOrigin", CONTEXT),
    ("DOMStorage.getDOMStorageItems", "storageId.securityOrigin", CONTEXT),
    ("DOMStorage.removeDOMStorageItem", "storageId.securityOrigin", CONTEXT),
    ("DOMStorage.setDOMStorageItem", "storageId.securityOrigin", CONTEXT),
    ("Debugger.enable", "maxScriptsCacheSize", RENDERER),
    ("Debugger.evaluateOnCallFrame", "objectGroup scopeNumber", RENDERER),
    ("Debugger.getStackTrace", "stackTraceId.id", SESSION),
    ("Debugger.nextWasmDisassemblyChunk", "streamId", SESSION),
    ("Debugger.pauseOnAsyncCall", "parentStackTraceId.id", SESSION),
    ("Debugger.setAsyncCallStackDepth", "maxDepth", RENDERER),
    ("Debugger.setBlackboxExecutionContexts", "uniqueIds[]", RENDERER),
    ("Debugger.setBlackboxPatterns", "patterns[]", TEXT),
    ("Debugger.setBreakpointByUrl", "lineNumber url urlRegex columnNumber", RENDERER),
    ("Debugger.setReturnValue", "newValue.value", RENDERER),
    ("Debugger.setVariableValue", "scopeNumber newValue.value", RENDERER),
    ("DeviceOrientation.setDeviceOrientationOverride", "alpha beta gamma", RENDERER),
    ("Emulation.setDeviceMetricsOverride", "screenOrientation.angle", CHECKED),
    ("Emulation.setDisplayFeaturesOverride", "features[].offset features[].maskLength", PAGE),
    ("Emulation.setGeolocationOverride", "latitude longitude accuracy altitude altitudeAccuracy heading speed", PAGE),
    ("Emulation.setHardwareConcurrencyOverride", "hardwareConcurrency", CHECKED),
    ("Emulation.setLocaleOverride", "locale", TEXT),
    ("Emulation.setSensorOverrideEnabled", "metadata.minimumFrequency metadata.maximumFrequency", PAGE),
    ("Emulation.setSensorOverrideReadings", "reading.single.value reading.xyz.x reading.xyz.y reading.xyz.z reading.quaternion.x reading.quaternion.y reading.quaternion.z reading.quaternion.w", PAGE),
    ("Emulation.setTimezoneOverride", "timezoneId", TEXT),
    ("Emulation.setTouchEmulationEnabled", "maxTouchPoints", CHECKED),
    ("Emulation.setVirtualTimePolicy", "budget maxVirtualTimeTaskStarvationCount", RENDERER),
    ("FedCm.clickDialogButton", "dialogId", PAGE),
    ("FedCm.dismissDialog", "dialogId", PAGE),
    ("FedCm.openUrl", "dialogId accountIndex", CHECKED),
    ("FedCm.selectAccount", "dialogId accountIndex", CHECKED),
    ("Fetch.continueRequest", "postData", TEXT),
    ("Fetch.continueRequest", "url", "asked of the network, which knows no scheme but the web's: a test shows"),
    ("Fetch.continueResponse", "responseCode binaryResponseHeaders responseHeaders[].name responseHeaders[].value", CHECKED),
    ("Fetch.enable", "patterns[].urlPattern", TEXT),
    ("Fetch.fulfillRequest", "responseCode binaryResponseHeaders body", CHECKED),
    ("FileSystem.getDirectory", "bucketFileSystemLocator.bucketName bucketFileSystemLocator.pathComponents[]", "a path in the origin's own file system"),
    ("IO.read", "offset", CHECKED),
    ("IndexedDB.clearObjectStore", "securityOrigin", CONTEXT),
    ("IndexedDB.deleteDatabase", "securityOrigin", CONTEXT),
    ("IndexedDB.deleteObjectStoreEntries", "securityOrigin keyRange.lower.number keyRange.lower.date keyRange.upper.number keyRange.upper.date", CONTEXT),
    ("IndexedDB.getMetadata", "securityOrigin", CONTEXT),
    ("IndexedDB.requestData", "securityOrigin keyRange.lower.number keyRange.lower.date keyRange.upper.number keyRange.upper.date", CONTEXT),
    ("IndexedDB.requestDatabase", "securityOrigin", CONTEXT),
    ("IndexedDB.requestDatabaseNames", "securityOrigin", CONTEXT),
    ("Input.dispatchDragEvent", "data.items[].title data.items[].baseURL", TEXT),
    ("Input.dispatchDragEvent", "x y data.dragOperationsMask modifiers", PAGE),
    ("Input.dispatchKeyEvent", "modifiers windowsVirtualKeyCode nativeVirtualKeyCode location", PAGE),
    ("Input.dispatchMouseEvent", "x y modifiers buttons clickCount force tangentialPressure tiltX tiltY twist deltaX deltaY", PAGE),
    ("Input.dispatchTouchEvent", "touchPoints[].x touchPoints[].y touchPoints[].radiusX touchPoints[].radiusY touchPoints[].rotationAngle touchPoints[].force touchPoints[].tangentialPressure touchPoints[].tiltX touchPoints[].tiltY touchPoints[].twist touchPoints[].id modifiers", PAGE),
    ("Input.emulateTouchFromMouseEvent", "x y deltaX deltaY modifiers clickCount", PAGE),
    ("Input.synthesizePinchGesture", "x y", PAGE),
    ("Input.synthesizeScrollGesture", "x y", PAGE),
    ("Input.synthesizeTapGesture", "x y", PAGE),
    ("Log.startViolationsReport", "config[].threshold", RENDERER),
    ("Network.deleteCookies", "url domain path partitionKey.topLevelSite", CONTEXT),
    ("Network.deleteDeviceBoundSession", "key.site key.id", CONTEXT),
    ("Network.emulateNetworkConditions", "latency downloadThroughput uploadThroughput packetLoss packetQueueLength", PAGE),
    ("Network.emulateNetworkConditionsByRule", "matchedNetworkConditions[].urlPattern matchedNetworkConditions[].latency matchedNetworkConditions[].downloadThroughput matchedNetworkConditions[].uploadThroughput matchedNetworkConditions[].packetLoss matchedNetworkConditions[].packetQueueLength", PAGE),
    ("Network.fetchSchemefulSite", "origin", TEXT),
    ("Network.getCertificate", "origin", CONTEXT),
    ("Network.getCookies", "urls[]", CONTEXT),
    ("Network.overrideNetworkState", "latency downloadThroughput uploadThroughput", PAGE),
    ("Network.setBlockedURLs", "urlPatterns[].urlPattern urls[]", TEXT),
    ("Network.setCookie", "url domain path sourcePort partitionKey.topLevelSite", CONTEXT),
    ("Network.setCookies", "cookies[].url cookies[].domain cookies[].path cookies[].sourcePort cookies[].partitionKey.topLevelSite", CONTEXT),
    ("Overlay.highlightQuad", "quad[]", RENDERER),
    ("Overlay.highlightRect", "x y width height", RENDERER),
    ("Overlay.setShowDisplayCutout", "displayCutoutConfig.rect.x displayCutoutConfig.rect.y displayCutoutConfig.rect.width displayCutoutConfig.rect.height displayCutoutConfig.borderRadius displayCutoutConfig.upperRadius displayCutoutConfig.lowerRadius displayCutoutConfig.cx displayCutoutConfig.cy displayCutoutConfig.radius", RENDERER),
    ("Overlay.setShowHinge", "hingeConfig.rect.x hingeConfig.rect.y hingeConfig.rect.width hingeConfig.rect.height", RENDERER),
    ("Page.createIsolatedWorld", "contentSecurityPolicy", TEXT),
    ("Page.deleteCookie", "url", CONTEXT),
    ("Page.getAppManifest", "manifestId", TEXT),
    ("Page.getResourceContent", "url", "among what the page has loaded"),
    ("Page.navigate", "referrer", TEXT),
    ("Page.navigateToHistoryEntry", "entryId", PAGE),
    ("Page.printToPDF", "headerTemplate footerTemplate", "HTML that loads nothing"),
    ("Page.produceCompilationCache", "scripts[].url", TEXT),
    ("Page.reload", "scriptToEvaluateOnLoad", TEXT),
    ("Page.screencastFrameAck", "sessionId", SESSION),
    ("Page.searchInResource", "url", "among what the page has loaded"),
    ("Page.setDeviceMetricsOverride", "screenOrientation.angle", CHECKED),
    ("Page.setDeviceOrientationOverride", "alpha beta gamma", RENDERER),
    ("Page.setFontSizes", "fontSizes.standard fontSizes.fixed", RENDERER),
    ("Page.setGeolocationOverride", "latitude longitude accuracy", PAGE),
    ("Runtime.callFunctionOn", "arguments[].value uniqueContextId serializationOptions.maxDepth serializationOptions.additionalParameters", RENDERER),
    ("Runtime.compileScript", "sourceURL", TEXT),
    ("Runtime.evaluate", "uniqueContextId serializationOptions.maxDepth serializationOptions.additionalParameters", RENDERER),
    ("Runtime.setAsyncCallStackDepth", "maxDepth", RENDERER),
    ("Runtime.setMaxCallStackSizeToCapture", "size", RENDERER),
    ("Security.handleCertificateError", "eventId", PAGE),
    ("ServiceWorker.deliverPushMessage", "origin", CONTEXT),
    ("ServiceWorker.dispatchPeriodicSyncEvent", "origin", CONTEXT),
    ("ServiceWorker.dispatchSyncEvent", "origin", CONTEXT),
    ("ServiceWorker.skipWaiting", "scopeURL", CONTEXT),
    ("ServiceWorker.startWorker", "scopeURL", CONTEXT),
    ("ServiceWorker.stopWorker", "versionId", CONTEXT),
    ("ServiceWorker.unregister", "scopeURL", CONTEXT),
    ("ServiceWorker.updateRegistration", "scopeURL", CONTEXT),
    ("Storage.clearCookies", "browserContextId", "refused by Chromium on a page's session"),
    ("Storage.clearDataForOrigin", "origin", CONTEXT),
    ("Storage.clearPrivateVerificationTokens", "issuerOrigin", CONTEXT),
    ("Storage.clearTrustTokens", "issuerOrigin", CONTEXT),
    ("Storage.deletePrivateVerificationToken", "tokenId", CONTEXT),
    ("Storage.getCookies", "browserContextId", "refused by Chromium on a page's session"),
    ("Storage.getUsageAndQuota", "origin", CONTEXT),
    ("Storage.overrideQuotaForOrigin", "origin", CONTEXT),
    ("Storage.setCookies", "browserContextId", "refused by Chromium on a page's session"),
    ("Storage.setCookies", "cookies[].url cookies[].domain cookies[].path cookies[].sourcePort cookies[].partitionKey.topLevelSite", CONTEXT),
    ("Storage.trackCacheStorageForOrigin", "origin", CONTEXT),
    ("Storage.trackIndexedDBForOrigin", "origin", CONTEXT),
    ("Storage.untrackCacheStorageForOrigin", "origin", CONTEXT),
    ("Storage.untrackIndexedDBForOrigin", "origin", CONTEXT),
    ("Target.createBrowserContext", "originsWithUniversalNetworkAccess[]", CONTEXT),
    ("WebAuthn.addCredential", "credential.credentialId credential.rpId credential.privateKey credential.userHandle credential.signCount credential.largeBlob credential.cmtgKeys[] credential.activeCmtgKeyIndex", PAGE),
    ("WebAuthn.getCredential", "credentialId", PAGE),
    ("WebAuthn.removeCredential", "credentialId", PAGE),
    ("WebAuthn.setCredentialProperties", "credentialId activeCmtgKeyIndex signCount", PAGE),
    ("WebMCP.cancelInvocation", "invocationId", PAGE),
    ("WebMCP.invokeTool", "input", TEXT),
];

/// A single parameter of a command, after taking objects and lists apart.
#[derive(Debug)]
struct Leaf {
    path: String,
    /// The type that it refers to, if it has a name of its own.
    named: Option<String>,
    /// Its name, its description and those of its type.
    about: String,
    is_text: bool,
}

/// The types of the protocol by their full names.
struct Types(std::collections::HashMap<String, Value>);

impl Types {
    fn read(protocol: &Value) -> Self {
        let mut types = std::collections::HashMap::new();
        for domain in list(protocol, "domains") {
            for kind in list(domain, "types") {
                types.insert(
                    format!("{}.{}", text(domain, "domain"), text(kind, "id")),
                    kind.clone(),
                );
            }
        }
        Self(types)
    }

    /// Takes a parameter apart. Switches and lists of words are not leaves.
    fn leaves(
        &self,
        domain: &str,
        path: &str,
        parameter: &Value,
        above: &[String],
        found: &mut Vec<Leaf>,
    ) {
        let reference = text(parameter, "$ref");
        if !reference.is_empty() {
            let full = if reference.contains('.') {
                reference.to_owned()
            } else {
                format!("{domain}.{reference}")
            };
            if above.contains(&full) {
                return;
            }
            let kind = &self.0[&full];
            let home = full.split('.').next().expect("a type has a domain");
            let above: Vec<String> = above.iter().cloned().chain([full.clone()]).collect();
            let mut below = Vec::new();
            let is_harmless = HARMLESS_TYPES.iter().any(|(name, _)| *name == full);
            if !is_harmless {
                self.leaves(home, path, kind, &above, &mut below);
            }
            // If it has no parts, the type itself is the leaf.
            for leaf in &mut below {
                if leaf.path == path {
                    leaf.named = Some(full.clone());
                    leaf.about =
                        format!("{} {full} {}", leaf.about, text(parameter, "description"));
                }
            }
            return found.append(&mut below);
        }
        if let Some(items) = parameter.get("items") {
            let mut below = Vec::new();
            self.leaves(domain, &format!("{path}[]"), items, above, &mut below);
            for leaf in &mut below {
                leaf.about = format!("{} {}", leaf.about, text(parameter, "description"));
            }
            return found.append(&mut below);
        }
        let properties = list(parameter, "properties");
        for property in properties {
            let path = format!("{path}.{}", text(property, "name"));
            self.leaves(domain, &path, property, above, found);
        }
        let kind = text(parameter, "type");
        if properties.is_empty() && parameter.get("enum").is_none() && kind != "boolean" {
            found.push(Leaf {
                path: path.to_owned(),
                named: None,
                about: format!("{path} {}", text(parameter, "description")),
                is_text: kind == "string",
            });
        }
    }
}

impl Leaf {
    /// Returns `true` if somebody must have looked at it: numbers, bytes and objects of any kind,
    /// and text that sounds as if it were used to open or find something.
    fn is_suspicious(&self) -> bool {
        const HINTS: &[&str] = &[
            "path", "file", "url", "uri", "origin", "site", "host", "director", "address",
            "domain", "handle", "proxy", "server", "mimetype",
        ];
        let about = self.about.to_lowercase();
        let name = self.path.rsplit('.').next().unwrap_or_default().trim_end_matches("[]");
        let is_id = |word: &str| {
            let word = word.trim_matches(|char: char| !char.is_alphanumeric());
            ["id", "Id", "ID", "ids", "Ids", "IDs"].iter().any(|end| word.ends_with(end))
        };
        !self.is_text
            || HINTS.iter().any(|hint| about.contains(hint))
            || is_id(name)
            || self.about.split_whitespace().any(|word| matches!(word, "id" | "ids" | "Id" | "ID"))
            || self.named.as_deref().is_some_and(is_id)
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns the rules by which a shared lease may send a command.
fn rules_of(method: &str) -> Vec<Rule> {
    [SessionKind::Browser, SessionKind::Page]
        .map(|session| rule(method, session, LeaseKind::Shared))
        .into_iter()
        .filter(|rule| !matches!(rule, Rule::Refuse | Rule::NotAllowed | Rule::Nothing))
        .collect()
}

/// Returns every parameter of every command that a shared lease may send, by method.
fn parameters() -> Vec<(String, Leaf)> {
    let protocol: Value = serde_json::from_str(protocol::JSON).expect("it is JSON");
    let types = Types::read(&protocol);
    let mut all = Vec::new();
    for domain in list(&protocol, "domains") {
        let name = text(domain, "domain");
        for command in list(domain, "commands") {
            let method = format!("{name}.{}", text(command, "name"));
            if rules_of(&method).is_empty() {
                continue;
            }
            for parameter in list(command, "parameters") {
                let mut leaves = Vec::new();
                types.leaves(name, text(parameter, "name"), parameter, &[], &mut leaves);
                all.extend(leaves.into_iter().map(|leaf| (method.clone(), leaf)));
            }
        }
    }
    all
}

fn is_harmless(method: &str, path: &str) -> bool {
    HARMLESS.iter().any(|(its, paths, _)| *its == method && paths.split(' ').any(|it| it == path))
}

/// Returns `true` if a parameter has been dealt with.
fn is_judged(method: &str, leaf: &Leaf) -> bool {
    let rules = rules_of(method);
    let by_bounds = PARAMETERS.iter().any(|row| row.method == method && row.path == leaf.path);
    let by_rule = BY_RULE.iter().any(|(its, path, rule)| {
        *its == method && *path == leaf.path && rules.iter().all(|it| it == rule)
    });
    let by_owner = OWNED.iter().any(|(name, judges)| {
        leaf.named.as_deref() == Some(name) && rules.iter().all(|rule| judges.contains(rule))
    });
    by_bounds || by_rule || by_owner || is_harmless(method, &leaf.path)
}

#[test]
fn s06_every_parameter_of_a_shared_lease_is_judged() {
    let all = parameters();
    assert!(all.len() > 500, "only {} parameters were found", all.len());
    let unknown: Vec<String> = all
        .iter()
        .filter(|(method, leaf)| leaf.is_suspicious() && !is_judged(method, leaf))
        .map(|(method, leaf)| format!("{method} {} ({:?})", leaf.path, leaf.named))
        .collect();
    assert!(unknown.is_empty(), "nobody has looked at:\n{}", unknown.join("\n"));
}

#[test]
fn what_is_bounded_is_read_by_its_rule() {
    for row in PARAMETERS {
        let rules = rules_of(row.method);
        let reads = |rule: &Rule| matches!(rule, Rule::Judged | Rule::CreateTarget | Rule::Window);
        assert!(!rules.is_empty() && rules.iter().all(reads), "{}: {rules:?}", row.method);
    }
}

#[test]
fn the_tables_name_nothing_that_is_not_there() {
    let all = parameters();
    let there: HashSet<(&str, &str)> =
        all.iter().map(|(method, leaf)| (method.as_str(), leaf.path.as_str())).collect();
    let bounded = PARAMETERS.iter().map(|row| (row.method, row.path));
    let by_rule = BY_RULE.iter().map(|(method, path, _)| (*method, *path));
    let harmless = HARMLESS
        .iter()
        .flat_map(|(method, paths, _)| paths.split(' ').map(move |path| (*method, path)));
    let gone: Vec<_> = bounded
        .chain(by_rule)
        .chain(harmless)
        // Words are not leaves, but one of them may be bounded all the same.
        .filter(|(_, path)| !path.ends_with("windowState"))
        .filter(|row| !there.contains(row))
        .collect();
    assert!(gone.is_empty(), "{gone:?}");
}

/// Marks the end of a conversation, since Chromium answers in order.
const LAST: &str = r#"{"id":1000000,"method":"Browser.getVersion"}"#;

const ROUNDS: usize = 1_000;

#[tokio::test]
async fn chromium_understands_what_the_filter_has_understood() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path().join("s")).unwrap();
    for engine in [Engine::Shell, Engine::Chromium] {
        let options = LaunchOptions::new().engine(engine);
        let (chromium, mut pipe) = Chromium::launch(options, &state).await.unwrap();
        let mut rng = fastrand::Rng::with_seed(20_261_127);
        let mut understood = 0;
        for _ in 0..ROUNDS {
            let text = message(&mut rng);
            let Ok(command) = parse(&text) else { continue };
            understood += 1;
            let params = command.params.map(|params| params.get());
            let anew = write(command.id, &command.method, params, None);
            let mut plain = answers(&mut pipe, text.as_bytes()).await;
            let mut rewritten = answers(&mut pipe, &anew[..anew.len() - 1]).await;
            for (plain, rewritten) in plain.iter_mut().zip(&mut rewritten) {
                // Chromium stops at the first mistake, so it has not seen an id that comes after
                // it.
                if plain.get("error").is_some() && plain.get("id").is_none() {
                    rewritten.remove("id");
                }
            }
            assert_eq!(plain, rewritten, "{engine:?} and we understand differently: {text:?}");
        }
        assert!(understood > ROUNDS / 20, "only {understood} were commands at all");
        chromium.close(Duration::from_secs(5)).await;
    }
}

/// Returns everything that Chromium says to a message.
async fn answers(pipe: &mut Pipe, message: &[u8]) -> Vec<Map<String, Value>> {
    let talk = async {
        for text in [message, LAST.as_bytes()] {
            pipe.writer.write_all(&[text, b"\0"].concat()).await.unwrap();
        }
        let mut heard = Vec::new();
        loop {
            let mut answer = Vec::new();
            loop {
                match pipe.reader.read_u8().await.unwrap() {
                    0 => break,
                    byte => answer.push(byte),
                }
            }
            let answer: Map<String, Value> = serde_json::from_slice(&answer).unwrap();
            if answer.get("id") == Some(&json!(1_000_000)) {
                return heard;
            }
            heard.push(answer);
        }
    };
    timeout(Duration::from_secs(60), talk).await.expect("Chromium answers")
}

/// Something between a command and nonsense.
fn message(rng: &mut fastrand::Rng) -> String {
    let mut members = Vec::new();
    if rng.u8(..) > 5 {
        members.push((key(rng, "id"), pick(rng, IDS).to_owned()));
    }
    if rng.u8(..) > 5 {
        members.push((key(rng, "method"), method(rng)));
    }
    if rng.bool() {
        members.push((key(rng, "params"), pick(rng, PARAMS).to_owned()));
    }
    if rng.u8(..) < 20 {
        members.push((key(rng, "sessionId"), r#""""#.to_owned()));
    }
    if rng.u8(..) < 10 {
        members.push((key(rng, "extra"), "1".to_owned()));
    }
    if rng.u8(..) < 20
        && let Some(again) = rng.choice(&members).cloned()
    {
        members.push(again);
    }
    rng.shuffle(&mut members);
    let mut text = format!("{}{{", space(rng));
    for (at, (key, value)) in members.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let (a, b, c, d) = (space(rng), space(rng), space(rng), space(rng));
        text += &format!("{comma}{a}{key}{b}:{c}{value}{d}");
    }
    text += pick(rng, ENDS);
    text
}

const IDS: &[&str] = &[
    "7",
    "7",
    "7",
    "7",
    "0",
    "-7",
    "-0",
    "7.0",
    "7e0",
    "70e-1",
    "7.5",
    "07",
    "+7",
    "0x7",
    r#""7""#,
    "[7]",
    "null",
    "true",
    "2147483647",
    "2147483648",
    "4294967303",
    "1e400",
    "-1000001",
];

const PARAMS: &[&str] = &[
    "{}",
    "{}",
    "{ }",
    r#"{"a":1}"#,
    r#"{"a":1,"a":2}"#,
    r#"{"targetId":"x"}"#,
    "null",
    "[]",
    "7",
    r#""x""#,
    r#"{"a":{"method":"Browser.close","id":7}}"#,
    r#"{"a":"\ud800"}"#,
    "{\"a\":\"\u{2028}\"}",
    "{\"a\":1,}",
    r#"{"a":"},\"method\":\"Target.getTargets\",\"b\":{"}"#,
];

const METHODS: &[&str] = &[
    "Browser.getVersion",
    "Target.getTargets",
    "Target.getBrowserContexts",
    "Target.getTargetInfo",
    "Nothing.known",
    "Browser",
    "",
    ".",
    "Browser.getVersion ",
    "browser.getVersion",
    "Bröwser.getVersion",
    "Browser.getVersion\u{0}",
    "Browser.getVersion\"",
    "Browser\\getVersion",
    "\u{1f600}.x",
    "Browser.get\nVersion",
];

const ENDS: &[&str] = &["}", "}", "}", "}", "}", "} ", "}\n", ",}", "}}", "} x", "}{}", ""];

fn pick<'a>(rng: &mut fastrand::Rng, from: &[&'a str]) -> &'a str {
    rng.choice(from).copied().expect("there are some")
}

fn space(rng: &mut fastrand::Rng) -> &'static str {
    match rng.u8(..) {
        0..=9 => " ",
        10..=19 => "\r\n\t",
        20..=21 => "/**/",
        22..=23 => "\u{feff}",
        24..=25 => "\u{a0}",
        26..=27 => "\u{b}",
        _ => "",
    }
}

fn key(rng: &mut fastrand::Rng, key: &str) -> String {
    match rng.u8(..) {
        0..=4 => string(rng, &key.to_uppercase()),
        5..=9 => key.to_owned(),
        10..=14 => format!("'{key}'"),
        15..=19 => string(rng, &format!("{key}\u{0}")),
        _ => string(rng, key),
    }
}

fn method(rng: &mut fastrand::Rng) -> String {
    match rng.u8(..) {
        0..=9 => {
            pick(rng, &["7", "null", "[]", "{}", r#""\ud800.x""#, r#""\x41.x""#, "\"a\u{1}b\""])
                .to_owned()
        }
        _ => {
            let name = pick(rng, METHODS);
            string(rng, name)
        }
    }
}

/// Returns a string literal in which some characters are escaped that need not be.
fn string(rng: &mut fastrand::Rng, text: &str) -> String {
    let mut literal = String::from("\"");
    for char in text.chars() {
        let plain = !matches!(char, '"' | '\\' | '\u{0}'..='\u{1f}');
        if plain && rng.u8(..) > 8 {
            literal.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                literal += &format!("\\u{unit:04x}");
            }
        }
    }
    literal.push('"');
    literal
}
