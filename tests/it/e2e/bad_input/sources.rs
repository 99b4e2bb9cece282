//! Sources that are down, slow, or fail in the middle.

use rowgate::rpc::pb;
use tokio::net::TcpSocket;
use tonic::Code;

use super::{
    refusal::{refused, refused_for_now, says_nothing_secret},
    shop::{BREAKS_AT, Shop, definition, rows, sql, table},
};
use crate::support::rowgate::Rowgate;

/// Holds a port of this machine, so that nobody else gets it, and does not listen.
fn closed_port() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_down_is_unavailable_and_stays_nameless() {
    let held = closed_port();
    let port = held.local_addr().unwrap().port();
    for url in [
        format!("postgres://reader:hunter2@127.0.0.1:{port}/shop"),
        format!("mysql://reader:hunter2@127.0.0.1:{port}/shop"),
        "sqlite://{folder}/shop.db".to_owned(),
    ] {
        let toml = format!(
            "[sources.open]\nurl = \"{url}\"\nallow_tables = [\"orders\"]\nallow_sql = true\n"
        );
        let mut shop = Shop::of(Rowgate::start(&toml).await);
        for spec in [table("orders"), sql("select 1")] {
            let answer = shop.submit(spec.clone()).await;
            let refusal = refused_for_now(answer, Code::Unavailable, "SOURCE_UNAVAILABLE");
            assert!(!refusal.message.contains(&port.to_string()), "{refusal:?}");
            assert!(!refusal.message.contains("reader"), "{refusal:?}");
            let answer = shop.stream_of(rows(spec)).await;
            refused_for_now(answer, Code::Unavailable, "SOURCE_UNAVAILABLE");
        }
        let list = pb::ListExportsRequest::default();
        let listed = shop.rowgate.exports.list_exports(list).await.unwrap();
        let left: Vec<_> = listed.into_inner().exports;
        assert!(
            left.iter()
                .all(|export| export.state() != pb::State::Queued),
            "{left:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_goes_away_is_tried_again_and_then_given_up() {
    let queue = "[queue]\nmax_attempts = 2\nbackoff_min = \"10ms\"\npoll_interval = \"100ms\"";
    let mut shop = Shop::sqlite_with(queue).await;
    let pause = pb::PauseQueueRequest::default();
    shop.rowgate.admin.pause_queue(pause).await.unwrap();
    let request = pb::SubmitExportRequest {
        spec: Some(table("orders")),
        execution: pb::Execution::Queued.into(),
        ..Default::default()
    };
    let queued = shop.submit_as(request).await.unwrap();
    std::fs::remove_file(shop.rowgate.folder.join("shop.db")).unwrap();
    let resume = pb::ResumeQueueRequest::default();
    shop.rowgate.admin.resume_queue(resume).await.unwrap();
    let failed = shop.ended(&queued.id).await;
    assert_eq!(failed.state(), pb::State::Failed);
    assert_eq!(failed.attempt, 2);
    for failure in [failed.error.unwrap(), failed.last_failure.unwrap()] {
        assert_eq!(failure.code, Code::Unavailable as i32);
        assert_eq!(failure.reason, "SOURCE_UNAVAILABLE");
        assert!(failure.retryable);
        says_nothing_secret(&failure.message);
    }
    assert_eq!(shop.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_in_its_middle_leaves_no_file() {
    for mut shop in Shop::each().await {
        let kind = shop.kind();
        let formats = [
            pb::format::Kind::Csv(pb::Csv::default()),
            pb::format::Kind::Xlsx(pb::Xlsx::default()),
            pb::format::Kind::Parquet(pb::Parquet::default()),
        ];
        let mut specs = vec![rows(definition("failing"))];
        specs.extend(formats.map(|kind| {
            let mut spec = definition("failing");
            spec.format = Some(super::shop::format(kind));
            spec
        }));
        for spec in specs {
            let failed = shop.fail(spec).await;
            let error = failed.error.unwrap();
            assert_eq!(error.reason, "QUERY_FAILED", "{kind}: {error:?}");
            let so_far: i64 = error.metadata["rows_read"].parse().unwrap();
            assert!(so_far > 0 && so_far < BREAKS_AT, "{kind}: {error:?}");
            assert_eq!(shop.files(), Vec::<String>::new(), "{kind}");
        }
        // A live stream brings the rows before, then the error and no footer.
        let request = pb::StreamRowsRequest {
            target: Some(pb::stream_rows_request::Target::Spec(rows(definition(
                "failing",
            )))),
            max_batch_rows: 1000,
            ..Default::default()
        };
        let stream = shop.rowgate.exports.stream_rows(request).await;
        let mut stream = stream.unwrap().into_inner();
        let mut brought = 0;
        let status = loop {
            match stream.message().await {
                Ok(Some(event)) => match event.event.unwrap() {
                    pb::stream_rows_response::Event::Batch(batch) => {
                        brought += i64::from(batch.row_count);
                    }
                    pb::stream_rows_response::Event::Footer(_) => panic!("{kind}: complete"),
                    _ => {}
                },
                Ok(None) => panic!("{kind}: no error"),
                Err(status) => break status,
            }
        };
        assert!(brought < BREAKS_AT, "{kind}");
        refused::<()>(Err(status), Code::FailedPrecondition, "QUERY_FAILED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_ended() {
    let each = [
        // The rows behind the first ones take for ever: SQLite describes a query by running it so far.
        (
            Shop::sqlite().await,
            "select id, case when id < 9000 then 0 else (select count(*) from orders a, orders b, orders c) end as n from orders",
        ),
        (
            Shop::postgres().await,
            "select pg_sleep(60) is null as slept",
        ),
        (Shop::mariadb().await, "select sleep(60) as slept"),
    ];
    for (mut shop, slow) in each {
        let kind = shop.kind();
        let mut spec = sql(slow);
        spec.source = "hasty".to_owned();
        let failed = shop.fail(spec.clone()).await;
        let error = failed.error.unwrap();
        assert_eq!(error.reason, "STATEMENT_TIMEOUT", "{kind}: {error:?}");
        assert_eq!(error.code, Code::DeadlineExceeded as i32);
        assert!(!error.retryable);
        assert_eq!(failed.attempt, 1);
        assert_eq!(shop.files(), Vec::<String>::new());
        refused(
            shop.stream_of(rows(spec)).await,
            Code::DeadlineExceeded,
            "STATEMENT_TIMEOUT",
        );
    }
}
