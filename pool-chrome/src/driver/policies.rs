//! What the policies of `pool-policies` ask of a driver's spec and resource.

use async_trait::async_trait;
use pool_core::BoxError;
use pool_policies::{
    ProfileInstance, ProfileSpec, ProxyAssignment, ProxyResource, ProxySpec, Warm, WarmUp,
};
use serde_json::json;

use super::gate::Gate;
use super::scratch::ScratchPage;
use super::{BrowserSpec, VirtualBrowser};
use crate::egress::Pass;
use crate::mux::DefaultContext;

impl ProfileSpec for BrowserSpec {
    fn set_profile(&mut self, instance: ProfileInstance) {
        self.instance = Some(instance);
    }
}

impl ProxySpec for BrowserSpec {
    fn set_proxy(&mut self, proxy: ProxyAssignment) {
        self.assignment = Some(proxy);
    }
}

impl ProxyResource for VirtualBrowser {
    fn proxy(&self) -> Option<&ProxyAssignment> {
        self.spec.assignment.as_ref()
    }
}

#[async_trait]
impl Warm for VirtualBrowser {
    /// Goes to the page in a context of its own, which is disposed: nobody finds it.
    async fn warm(&mut self, how: &WarmUp) -> Result<(), BoxError> {
        let Some(seat) = &self.seat else { return Ok(()) };
        // The page is the operator's wish: it may go wherever a lease may.
        let gate = Gate::new(&seat.place, DefaultContext::Fresh).await?;
        if let Some(gate) = &gate {
            gate.open(Pass::new);
        }
        let proxy = gate.as_ref().map(Gate::proxy_server);
        let page = ScratchPage::open(&seat.place.mux, proxy.as_deref()).await?;
        if let Some((width, height)) = how.viewport {
            let params = json!({
                "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
            });
            page.call("Emulation.setDeviceMetricsOverride", &params).await?;
        }
        if let Some(user_agent) = &how.user_agent {
            let params = json!({ "userAgent": user_agent });
            page.call("Emulation.setUserAgentOverride", &params).await?;
        }
        page.go(&how.url).await?;
        if let Some(script) = &how.script {
            page.run(script).await?;
        }
        page.close().await?;
        if let Some(gate) = gate {
            gate.finish();
        }
        Ok(())
    }
}
