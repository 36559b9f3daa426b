use std::collections::BTreeMap;

use serde_json::{Value, json};

/// As much of a browser as a multiplexer needs to start on it: browser sessions, contexts, pages.
#[derive(Debug, Default)]
pub(crate) struct Browser {
    ids: u64,
    /// Who wants to be told of targets and attached to them; the root session has no id.
    sessions: BTreeMap<Option<String>, Session>,
    /// Every context, and the session that it ends with.
    contexts: BTreeMap<String, Option<String>>,
    pages: BTreeMap<String, Page>,
}

#[derive(Debug, Default)]
struct Session {
    /// The page it is attached to; `None` for a browser session.
    page: Option<String>,
    discovers: bool,
    attaches: bool,
    waits: bool,
}

#[derive(Debug)]
struct Page {
    context: String,
    url: String,
}

const DEFAULT_CONTEXT: &str = "0000000000000000000000000000DEFA";
const BROWSER_TARGET: &str = "0000000000000000000000000000B40E";

impl Browser {
    /// Everything that Chromium would send for this command, its answer last.
    pub(crate) fn answer(&mut self, command: &Value, fail: bool) -> Vec<String> {
        let session = command["sessionId"].as_str().map(str::to_owned);
        let method = command["method"].as_str().unwrap_or_default();
        let mut events = Vec::new();
        let result = if fail {
            Err((-32000, format!("{method} fails, as it was told to")))
        } else {
            self.run(session.as_ref(), method, &command["params"], &mut events)
        };
        let mut answer = match result {
            Ok(result) => json!({ "id": command["id"], "result": result }),
            Err((code, message)) => {
                json!({ "id": command["id"], "error": { "code": code, "message": message } })
            }
        };
        if let Some(session) = session {
            answer["sessionId"] = json!(session);
        }
        events.push(answer);
        events.iter().map(Self::written).collect()
    }

    /// As Chromium writes it: the session id is the last member.
    fn written(message: &Value) -> String {
        let Some(session) = message["sessionId"].as_str() else { return message.to_string() };
        let mut rest = message.clone();
        rest.as_object_mut().expect("messages are objects").remove("sessionId");
        let rest = rest.to_string();
        format!(r#"{},"sessionId":"{session}"}}"#, &rest[..rest.len() - 1])
    }

    fn run(
        &mut self,
        session: Option<&String>,
        method: &str,
        params: &Value,
        events: &mut Vec<Value>,
    ) -> Result<Value, (i32, String)> {
        let key = session.cloned();
        if let Some(id) = session
            && !self.sessions.contains_key(&key)
        {
            return Err((-32001, format!("Session with given id not found: {id}")));
        }
        let text = |name: &str| params[name].as_str().map(str::to_owned);
        Ok(match method {
            "Browser.getVersion" => json!({
                "protocolVersion": "1.3",
                "product": "HeadlessChrome/156.0.0.0",
                "revision": "@fake",
                "userAgent": "Mozilla/5.0 (fake) HeadlessChrome/156.0.0.0",
                "jsVersion": "15.6",
            }),
            "Target.setDiscoverTargets" => {
                let discovers = params["discover"].as_bool().unwrap_or(false);
                self.sessions.entry(key.clone()).or_default().discovers = discovers;
                if discovers {
                    for id in self.pages.keys() {
                        let info = self.info(id, false);
                        events.push(event(
                            &key,
                            "Target.targetCreated",
                            &json!({ "targetInfo": info }),
                        ));
                    }
                }
                json!({})
            }
            "Target.setAutoAttach" => {
                let entry = self.sessions.entry(key).or_default();
                entry.attaches = params["autoAttach"].as_bool().unwrap_or(false);
                entry.waits = params["waitForDebuggerOnStart"].as_bool().unwrap_or(false);
                json!({})
            }
            "Target.attachToBrowserTarget" => {
                let id = self.id();
                self.sessions.insert(Some(id.clone()), Session::default());
                json!({ "sessionId": id })
            }
            "Target.getTargetInfo" => {
                let id = text("targetId").or_else(|| self.sessions.get(&key)?.page.clone());
                let id = id.unwrap_or_else(|| BROWSER_TARGET.to_owned());
                json!({ "targetInfo": self.info(&id, true) })
            }
            "Target.getTargets" => {
                let infos: Vec<Value> = self.pages.keys().map(|id| self.info(id, true)).collect();
                json!({ "targetInfos": infos })
            }
            "Target.getBrowserContexts" => json!({
                "browserContextIds": self.contexts.keys().collect::<Vec<_>>(),
                "defaultBrowserContextId": DEFAULT_CONTEXT,
            }),
            "Target.createBrowserContext" => {
                let id = self.id();
                let ends_with = params["disposeOnDetach"].as_bool().unwrap_or(false).then_some(key);
                self.contexts.insert(id.clone(), ends_with.flatten());
                json!({ "browserContextId": id })
            }
            "Target.disposeBrowserContext" => {
                let id = text("browserContextId").unwrap_or_default();
                if self.contexts.remove(&id).is_none() {
                    return Err((-32000, format!("Failed to find context with id {id}")));
                }
                self.close_pages(events, |page| page.context == id);
                json!({})
            }
            "Target.createTarget" => {
                let context =
                    text("browserContextId").unwrap_or_else(|| DEFAULT_CONTEXT.to_owned());
                let url = text("url").unwrap_or_default();
                json!({ "targetId": self.open(Page { context, url }, events) })
            }
            "Target.attachToTarget" => {
                let target = text("targetId").unwrap_or_default();
                let known = target == BROWSER_TARGET || self.pages.contains_key(&target);
                if !known {
                    return Err((-32602, "No target with given id found".to_owned()));
                }
                let page = (target != BROWSER_TARGET).then_some(target);
                json!({ "sessionId": self.attach(&key, page, false, events) })
            }
            "Target.closeTarget" => {
                let target = text("targetId").unwrap_or_default();
                self.close(&target, events);
                json!({ "success": true })
            }
            "Target.detachFromTarget" => {
                let gone = Some(text("sessionId").unwrap_or_default());
                self.sessions.remove(&gone);
                let doomed: Vec<String> = self
                    .contexts
                    .iter()
                    .filter(|(_, ends_with)| ends_with.is_some() && **ends_with == gone)
                    .map(|(context, _)| context.clone())
                    .collect();
                for context in doomed {
                    self.contexts.remove(&context);
                    self.close_pages(events, |page| page.context == context);
                }
                json!({})
            }
            "Page.getFrameTree" => {
                let id = self.sessions.get(&key).and_then(|session| session.page.clone());
                json!({ "frameTree": { "frame": { "id": id, "loaderId": "L", "url": "about:blank" } } })
            }
            "Page.navigate" => json!({ "frameId": "F", "loaderId": "L" }),
            "Runtime.evaluate" => {
                let expression = params["expression"].as_str().unwrap_or_default();
                let value = serde_json::from_str::<Value>(expression).unwrap_or(Value::Null);
                json!({ "result": { "type": "number", "value": value } })
            }
            "Storage.getCookies" => json!({ "cookies": [] }),
            "SystemInfo.getProcessInfo" => json!({
                "processInfo": [{ "type": "browser", "id": std::process::id(), "cpuTime": 0 }],
            }),
            _ => json!({}),
        })
    }

    fn open(&mut self, page: Page, events: &mut Vec<Value>) -> String {
        let id = self.id();
        self.pages.insert(id.clone(), page);
        for (session, wants) in &self.sessions {
            if wants.discovers {
                let params = json!({ "targetInfo": self.info(&id, false) });
                events.push(event(session, "Target.targetCreated", &params));
            }
        }
        let attachers: Vec<Option<String>> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.attaches && session.page.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for parent in attachers {
            let waits = self.sessions[&parent].waits;
            self.attach(&parent, Some(id.clone()), waits, events);
        }
        id
    }

    fn attach(
        &mut self,
        parent: &Option<String>,
        page: Option<String>,
        waits: bool,
        events: &mut Vec<Value>,
    ) -> String {
        let session = self.id();
        let info = self.info(page.as_deref().unwrap_or(BROWSER_TARGET), true);
        self.sessions.insert(Some(session.clone()), Session { page, ..Session::default() });
        let params =
            json!({ "sessionId": session, "targetInfo": info, "waitingForDebugger": waits });
        events.push(event(parent, "Target.attachedToTarget", &params));
        session
    }

    fn close_pages(&mut self, events: &mut Vec<Value>, doomed: impl Fn(&Page) -> bool) {
        let ids: Vec<String> =
            self.pages.iter().filter(|(_, page)| doomed(page)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.close(&id, events);
        }
    }

    fn close(&mut self, id: &str, events: &mut Vec<Value>) {
        if self.pages.remove(id).is_none() {
            return;
        }
        let attached: Vec<Option<String>> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.page.as_deref() == Some(id))
            .map(|(session, _)| session.clone())
            .collect();
        for session in attached {
            self.sessions.remove(&session);
            let params = json!({ "sessionId": session, "targetId": id });
            events.push(event(&None, "Target.detachedFromTarget", &params));
        }
        for (session, wants) in &self.sessions {
            if wants.discovers {
                events.push(event(session, "Target.targetDestroyed", &json!({ "targetId": id })));
            }
        }
    }

    fn info(&self, id: &str, attached: bool) -> Value {
        let page = self.pages.get(id);
        json!({
            "targetId": id,
            "type": if page.is_some() { "page" } else { "browser" },
            "title": "",
            "url": page.map_or("", |page| &page.url),
            "attached": attached,
            "canAccessOpener": false,
            "browserContextId": page.map_or(DEFAULT_CONTEXT, |page| &page.context),
        })
    }

    /// Ids look like Chromium's: 32 hexadecimal digits.
    fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:032X}", self.ids)
    }
}

fn event(session: &Option<String>, method: &str, params: &Value) -> Value {
    match session {
        Some(id) => json!({ "method": method, "params": params, "sessionId": id }),
        None => json!({ "method": method, "params": params }),
    }
}
