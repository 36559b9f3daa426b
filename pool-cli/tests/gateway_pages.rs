//! Pages by HTTP, and sockets that are bound to one.

mod gateway_support;

use gateway_support::{Answer, Running, ask, closed, request, start};
use pool_cli::config::Secret;
use serde_json::Value;

async fn with_token() -> Running {
    start(|config| config.gateway.token = Some(Secret::new("s3cret"))).await
}

async fn put(pool: &Running, path: &str) -> Answer {
    request(pool.address(), "PUT", path, &[], "").await
}

async fn list(pool: &Running, path: &str) -> Vec<Value> {
    let answer = pool.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json().as_array().expect("a list").clone()
}

/// The only lease's address, without the host.
async fn lease(pool: &Running, token: &str) -> String {
    let sessions = pool.get(&format!("/sessions{token}")).await.json();
    format!("/devtools/browser/{}", sessions[0]["id"].as_str().expect("one is held"))
}

#[tokio::test]
async fn a_page_is_listed_that_leases_when_it_is_opened() {
    let pool = start(|_| ()).await;
    for path in
        ["/json", "/json/", "/json/list", "/base/json/list/", "/json/list?profile=a&session=b"]
    {
        let listed = list(&pool, path).await;
        assert_eq!((listed.len(), &listed[0]["type"]), (1, &"page".into()), "{path}");
        let query = if path.contains('?') { "?profile=a&session=b" } else { "" };
        let url = format!("ws://{}/devtools/page/new{query}", pool.address());
        assert_eq!(listed[0]["webSocketDebuggerUrl"], url, "{path}");
    }
    assert_eq!(pool.gateway.pool().load().leased, 0);
    let mistake = pool.get("/json/list?prioritty=1").await;
    assert_eq!((mistake.status, mistake.code().as_str()), (400, "unknown_parameter"));

    let mut client = pool.connect("/devtools/page/new?trackingId=x").await;
    assert_eq!(ask(&mut client, "hello").await, "hello");
    assert_eq!(pool.gateway.pool().load().leased, 1);
    client.close(None).await.expect("it was open");
    pool.until("given back", |load| load.leased == 0).await;
}

#[tokio::test]
async fn the_pages_of_a_lease_are_listed_at_its_address_and_by_its_session() {
    let pool = start(|_| ()).await;
    let mut first = pool.connect("/?session=mine&tenant=a").await;
    let lease = lease(&pool, "").await;
    for path in [format!("{lease}/json"), format!("{lease}/json/list/")] {
        let listed = list(&pool, &path).await;
        let url = format!("ws://{}/devtools/page/FAKE", pool.address());
        assert_eq!(listed[0]["webSocketDebuggerUrl"], url, "{path}");
        assert_eq!((&listed[0]["id"], &listed[0]["url"]), (&"FAKE".into(), &"about:blank".into()));
    }
    let version = pool.get(&format!("{lease}/json/version/")).await.json();
    let url = format!("ws://{}{lease}", pool.address());
    assert_eq!(version["webSocketDebuggerUrl"], url, "not the address of another lease");
    assert_eq!(pool.get(&format!("{lease}/json/protocol")).await.status, 200);

    let query = "?session=mine&tenant=a";
    let listed = list(&pool, &format!("/json/list{query}")).await;
    let url = format!("/devtools/page/FAKE{query}");
    assert_eq!(listed[0]["webSocketDebuggerUrl"], format!("ws://{}{url}", pool.address()));
    let (mut page, answer) = pool.try_connect(&url, &[]).await.expect("it is held");
    let id = answer.headers()["lease-id"].to_str().expect("text");
    assert!(lease.ends_with(id), "{id}");
    assert_eq!(ask(&mut page, "hello").await, "hello");
    let mut joined = pool.connect(&format!("/devtools/page/new{query}")).await;
    assert_eq!(ask(&mut joined, "hello").await, "hello");
    assert_eq!(ask(&mut first, "hello").await, "hello");
    assert_eq!(pool.gateway.pool().load().leased, 1);

    let theirs = list(&pool, "/json/list?session=mine&tenant=b").await;
    assert_eq!(theirs[0]["id"], "new", "tenants do not see each other's");
    let differs = pool.get("/json/list?session=mine&tenant=a&profile=x").await;
    assert_eq!((differs.status, differs.code().as_str()), (409, "session_differs"));
    assert_eq!(pool.refused("/devtools/page/OTHER").await.0, 404);
    assert_eq!(pool.get("/devtools/browser/x/json/list").await.status, 404);
    assert_eq!(pool.get("/devtools/page/FAKE").await.status, 426);
}

#[tokio::test]
async fn a_lease_lives_as_long_as_any_of_its_sockets() {
    let pool = start(|_| ()).await;
    let browser = pool.connect("/").await;
    let lease = lease(&pool, "").await;
    let mut page = pool.connect("/devtools/page/FAKE").await;
    drop(browser);
    assert_eq!(ask(&mut page, "hello").await, "hello");
    let mut second = pool.connect(&lease).await;
    drop(page);
    assert_eq!(ask(&mut second, "hello").await, "hello");
    let mut page = pool.connect("/devtools/page/FAKE").await;
    assert_eq!(ask(&mut page, "shut").await, "shut");
    assert_eq!(closed(&mut page).await, (1000, "released: the page was closed".to_owned()));
    assert_eq!(ask(&mut second, "hello").await, "hello", "the lease goes on");
    let mut page = pool.connect("/devtools/page/FAKE").await;
    drop(second);
    assert_eq!(ask(&mut page, "hello").await, "hello");
    assert_eq!(pool.gateway.pool().load().leased, 1);
    ask(&mut page, "shut").await;
    pool.until("the last one was a page's", |load| load.leased == 0).await;
    assert_eq!(pool.refused(&lease).await.0, 410);
    assert_eq!(pool.refused("/devtools/page/FAKE").await.0, 404);

    let mut page = pool.connect("/devtools/page/new?keep=60000").await;
    ask(&mut page, "shut").await;
    closed(&mut page).await;
    let mut again = pool.connect("/devtools/page/FAKE").await;
    assert_eq!(ask(&mut again, "close").await, "close");
    pool.until("closed by its client", |load| load.leased == 0).await;
}

#[tokio::test]
async fn a_page_is_opened_in_a_lease_that_is_held() {
    let pool = start(|_| ()).await;
    for path in ["/json/new", "/json/new?https://a.example", "/json/new?session=mine"] {
        let refused = put(&pool, path).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "no_lease"), "{path}");
    }
    assert_eq!(pool.gateway.pool().load().total(), 0);
    let _client = pool.connect("/?session=mine").await;
    let lease = lease(&pool, "").await;
    let site = "https://a.example/?session=theirs&token=x";
    let new = put(&pool, &format!("/json/new?session=mine&{site}")).await.json();
    assert_eq!((&new["type"], &new["url"]), (&"page".into(), &site.into()));
    let url = format!("ws://{}/devtools/page/FAKE1?session=mine", pool.address());
    assert_eq!(new["webSocketDebuggerUrl"], url);
    let mut page = pool.connect("/devtools/page/FAKE1?session=mine").await;
    assert_eq!(ask(&mut page, "hello").await, "hello");
    let new = put(&pool, &format!("{lease}/json/new")).await.json();
    assert_eq!((&new["id"], &new["url"]), (&"FAKE2".into(), &"about:blank".into()));
    let refused = put(&pool, &format!("{lease}/json/new?file:///")).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "refused"));
    assert_eq!(list(&pool, "/json?session=mine").await.len(), 3);
    for path in ["/json/new?session=mine".to_owned(), format!("{lease}/json/new")] {
        assert_eq!(pool.get(&path).await.status, 405, "{path}");
        assert_eq!(pool.post(&path, "{}").await.status, 405, "{path}");
    }
    assert_eq!(list(&pool, "/json?session=mine").await.len(), 3);
}

#[tokio::test]
async fn pages_are_closed_and_shown_by_nothing_that_a_web_page_can_send() {
    let pool = start(|_| ()).await;
    let _client = pool.connect("/?session=mine").await;
    let lease = lease(&pool, "").await;
    for path in ["/json/close/FAKE", "/json/activate/FAKE", "/json/close/FAKE?session=mine"] {
        let form = [("content-type", "text/plain")];
        for (method, headers) in [("GET", &[][..]), ("POST", &[][..]), ("POST", &form[..])] {
            let answer = request(pool.address(), method, path, headers, "").await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "cross_site"), "{path}");
        }
    }
    assert_eq!(list(&pool, "/json?session=mine").await.len(), 1);
    let shown = put(&pool, "/json/activate/FAKE?session=mine").await;
    assert_eq!((shown.status, shown.body.as_str()), (200, "Target activated"));
    put(&pool, &format!("{lease}/json/new")).await;
    assert_eq!(put(&pool, "/json/close/FAKE?session=other").await.status, 404, "not its page");
    assert_eq!(put(&pool, "/json/close/FAKE").await.status, 200, "whoever has it");
    let closed = pool.get(&format!("{lease}/json/close/FAKE1")).await;
    assert_eq!((closed.status, closed.body.as_str()), (200, "Target is closing"), "its address");
    assert_eq!(list(&pool, "/json?session=mine").await, [] as [Value; 0]);
    let gone = put(&pool, "/json/close/FAKE1").await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "unknown_page"));
    assert_eq!(put(&pool, &format!("{lease}/json/activate/FAKE1")).await.status, 404);
}

#[tokio::test]
async fn the_token_is_wanted_but_where_the_address_is_a_secret() {
    let pool = with_token().await;
    for path in ["/json", "/json/list", "/json?session=mine", "/json/close/FAKE"] {
        assert_eq!(pool.get(path).await.status, 401, "{path}");
    }
    for path in ["/json/new", "/json/close/FAKE", "/json/activate/FAKE"] {
        assert_eq!(put(&pool, path).await.status, 401, "{path}");
    }
    for path in ["/devtools/page/new", "/devtools/page/FAKE", "/devtools/page/new?token=wrong"] {
        assert_eq!(pool.refused(path).await.0, 401, "{path}");
    }
    let listed = list(&pool, "/t/s3cret/json/list?session=mine").await;
    let url = format!("ws://{}/devtools/page/new?token=s3cret&session=mine", pool.address());
    assert_eq!(listed[0]["webSocketDebuggerUrl"], url);
    let path = url.split_once("/devtools").expect("a path").1;
    let mut client = pool.connect(&format!("/devtools{path}")).await;
    assert_eq!(ask(&mut client, "hello").await, "hello");
    let mut page = pool.connect("/devtools/page/FAKE").await;
    assert_eq!(ask(&mut page, "hello").await, "hello", "its address is known to its clients only");
    let lease = lease(&pool, "?token=s3cret").await;
    assert_eq!(list(&pool, &format!("{lease}/json")).await.len(), 1);

    let new = put(&pool, "/t/s3cret/json/new?session=mine&https://a.example/").await;
    assert_eq!(new.json()["url"], "https://a.example/", "the site does not see the token");
    // Who shows the token may use GET, as Chromium has it.
    let closed = pool.get("/json/close/FAKE1?token=s3cret").await;
    assert_eq!((closed.status, closed.body.as_str()), (200, "Target is closing"));
    assert_eq!(pool.refused("/devtools/page/FAKE1").await.0, 401);
    assert_eq!(pool.refused("/devtools/page/FAKE1?token=s3cret").await.0, 404);
}
