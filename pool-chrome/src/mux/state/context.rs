//! Browser contexts of a lease.

use serde_json::{Map, Value, json};

use super::super::client_proxies::ClientProxies;
use super::super::lease_options::DefaultContext;
use super::super::target::Id;
use super::client::Request;
use super::command::{INVALID_PARAMS, Params, SERVER_ERROR, write};
use super::{LeaseId, Reply, State, Watch};

/// The bypass list that leaves out nothing: loopback would go round a proxy otherwise.
pub(super) const BYPASS_NONE: &str = "<-loopback>";

const NO_CLIENT_PROXY: &str = "a context of this lease may not name a proxy or a bypass list of its own: \
     its traffic goes through the pool's, see `client_proxies`";

/// The context that a command names is not one of the lease's.
pub(super) struct ForeignContext(pub(super) String);

impl State {
    /// Returns `true` if a context belongs to a lease.
    pub(super) fn is_own_context(&self, lease: LeaseId, context: &str) -> bool {
        self.contexts.get(context).is_some_and(|context| context.lease == lease)
    }

    /// Sets the context of a command that names none, and checks one that is named. The real
    /// default context is never named: Chromium takes it for none.
    pub(super) fn set_context(
        &self,
        lease: LeaseId,
        params: &mut Map<String, Value>,
    ) -> Result<Id, ForeignContext> {
        const KEY: &str = "browserContextId";
        let foreign = |named: &str| ForeignContext(named.to_owned());
        let held = self.leases.get(&lease).ok_or_else(|| foreign(""))?;
        let default = held.default.clone().ok_or_else(|| foreign(""))?;
        let context = match params.get(KEY) {
            None | Some(Value::Null) => default.clone(),
            Some(Value::String(named)) if named.is_empty() => default.clone(),
            Some(Value::String(named)) if self.is_own_context(lease, named) => {
                named.as_str().into()
            }
            Some(Value::String(named)) => return Err(foreign(named)),
            Some(other) => return Err(foreign(&other.to_string())),
        };
        if context == default && held.options.default_context == DefaultContext::Real {
            params.remove(KEY);
        } else {
            params.insert(KEY.to_owned(), json!(&*context));
        }
        Ok(context)
    }

    /// The answer to `Target.getBrowserContexts`: the default one stands apart.
    pub(super) fn context_list(&self, lease: LeaseId) -> String {
        let default = self.leases.get(&lease).and_then(|lease| lease.default.clone());
        let mut others: Vec<&str> = self
            .contexts
            .iter()
            .filter(|(id, context)| context.lease == lease && Some(*id) != default.as_ref())
            .map(|(id, _)| &**id)
            .collect();
        others.sort_unstable();
        json!({ "browserContextIds": others, "defaultBrowserContextId": default.as_deref() })
            .to_string()
    }

    pub(super) fn create_context(&mut self, request: &Request<'_>) {
        let Some(mut params) = self.read::<Params>(request) else { return };
        if let Err(message) = self.set_proxy(request.lease, &mut params) {
            return self.refuse(request, INVALID_PARAMS, message);
        }
        // What its client did not bind to its own connection belongs to the lease: a client that
        // comes back finds it, and nothing outlives the lease.
        let bound = params.get("disposeOnDetach") == Some(&json!(true));
        params.insert("disposeOnDetach".to_owned(), json!(true));
        let base = self.leases.get(&request.lease).and_then(|lease| lease.base);
        let maker = if bound { request.session } else { base.unwrap_or(request.session) };
        let params = write(&params);
        let reply = Reply::Relay(request.relay(), Watch::Context(maker));
        self.relay(request.connection, Some(maker), &request.method, Some(&params), reply);
    }

    /// Sets the proxy of a context that names none to the lease's own, and checks one that is
    /// named: what goes through a proxy of the pool's must not be led round it.
    fn set_proxy(&self, lease: LeaseId, params: &mut Params) -> Result<(), &'static str> {
        let Some(held) = self.leases.get(&lease) else { return Ok(()) };
        let own = held.options.proxy.as_deref();
        let (server, bypass) = (params.get("proxyServer"), params.get("proxyBypassList"));
        let names_none = |value: Option<&Value>| value.is_none_or(Value::is_null);
        let proxy = match (&held.options.client_proxies, server) {
            (_, server) if names_none(server) && names_none(bypass) => own,
            (ClientProxies::Any, _) => None,
            (proxies @ ClientProxies::Only(_), Some(Value::String(server)))
                if proxies.allows(server)
                    && (names_none(bypass) || bypass == Some(&json!(BYPASS_NONE))) =>
            {
                Some(server.as_str())
            }
            (ClientProxies::Only(_), _) => return Err(NO_CLIENT_PROXY),
        };
        if let Some(proxy) = proxy.map(ToOwned::to_owned) {
            params.insert("proxyServer".to_owned(), json!(proxy));
            params.insert("proxyBypassList".to_owned(), json!(BYPASS_NONE));
        }
        Ok(())
    }

    pub(super) fn dispose_context(&mut self, request: &Request<'_>) {
        let Some(params) = self.read::<Params>(request) else { return };
        let named = params.get("browserContextId").and_then(Value::as_str).unwrap_or_default();
        let default = self.leases.get(&request.lease).and_then(|lease| lease.default.as_deref());
        if !self.is_own_context(request.lease, named) || default == Some(named) {
            let message = format!("Failed to find context with id {named}");
            return self.refuse(request, SERVER_ERROR, &message);
        }
        let watch = Watch::Disposed(named.into());
        self.send_watched(request, Some(&params), watch);
    }
}
