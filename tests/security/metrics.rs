//! S35: nobody can make series.

use std::collections::BTreeSet;

use browser_pool_tests::{Setup, case, request};

/// The series without their values.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn s35_metric_cardinality() {
    let setup = Setup::new()
        .set("profiles.work", toml::Table::new())
        .set("pool.max_size", 3)
        .set("pool.max_waiting", 0);
    case(setup, async |case| {
        let before = series(&case.service.get("/metrics").await.text());
        for number in 0..150 {
            let paths = [
                format!("/?profile=p{number}"),
                format!("/?region=r{number}"),
                format!("/?tenant=t{number}&trackingId=x{number}&priority={}", number % 12),
                format!("/devtools/browser/{number:032x}"),
            ];
            for path in &paths {
                if let Ok(client) = case.service.try_connect(path).await {
                    client.close().await;
                }
            }
            for (method, path) in
                [("GET", format!("/{number}")), (["PUT", "BREW"][number % 2], "/metrics".into())]
            {
                // Whatever it answers.
                let _ = request(&case.service.address, method, &path, &[], "").await;
            }
        }
        let after = series(&case.service.get("/metrics").await.text());
        let new: Vec<_> = after.difference(&before).collect();
        assert!(new.is_empty(), "{} new series, such as {:?}", new.len(), new.first());
        let named = after.iter().find(|series| series.contains("x1") || series.contains("t1\""));
        assert!(named.is_none(), "{named:?}");
    })
    .await;
}
