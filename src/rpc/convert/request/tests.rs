use jiff::Timestamp;

use super::*;
use crate::queue::ListCursor;

const ID: &str = "01937f0a-0000-7000-8000-000000000001";

fn tokens() -> Tokens {
    Tokens::new([1; 32])
}

fn spec() -> pb::ExportSpec {
    pb::ExportSpec {
        source: "shop".to_owned(),
        from: Some(pb::export_spec::From::Definition("orders".to_owned())),
        ..Default::default()
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// Asserts INVALID_ARGUMENT for exactly these fields.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Failure>, fields: &[&str]) {
    let failure = result.unwrap_err();
    assert_eq!(failure.code, Code::InvalidArgument);
    let found: Vec<_> = failure.violations.iter().map(|v| &v.field[..]).collect();
    assert_eq!(found, fields);
}

#[test]
fn unspecified_execution_is_auto() {
    let submit = submit_from_proto(pb::SubmitExportRequest {
        spec: Some(spec()),
        ..Default::default()
    })
    .unwrap();
    assert_eq!(submit.execution, Execution::Auto);
    assert_eq!((submit.request_id, submit.max_wait), (None, None));
    assert!(!submit.validate_only);
}

#[test]
fn a_submit_names_every_bad_field() {
    refused(
        submit_from_proto(pb::SubmitExportRequest {
            spec: Some(pb::ExportSpec {
                priority: 10,
                ..spec()
            }),
            request_id: "42".to_owned(),
            execution: 9,
            max_wait: seconds(-1),
            ..Default::default()
        }),
        &["spec.priority", "request_id", "execution", "max_wait"],
    );
    refused(
        submit_from_proto(pb::SubmitExportRequest::default()),
        &["spec"],
    );
}

#[test]
fn an_id_is_a_uuid() {
    for bad in ["", "x", "01937f0a-0000-7000-8000-00000000000"] {
        refused(export_id_from_proto(bad), &["export_id"]);
    }
    assert_eq!(export_id_from_proto(ID).unwrap().to_string(), ID);
    refused(
        get_status_from_proto(pb::GetStatusRequest {
            export_id: String::new(),
            wait: seconds(100_000),
        }),
        &["export_id", "wait"],
    );
}

#[test]
fn watching_has_an_interval() {
    let watch = |interval| {
        let export_id = ID.to_owned();
        watch_from_proto(pb::WatchExportRequest {
            export_id,
            interval,
        })
    };
    assert_eq!(watch(None).unwrap().interval, WATCH_INTERVAL_DEFAULT);
    refused(watch(seconds(0)), &["interval"]);
    refused(watch(seconds(301)), &["interval"]);
}

#[test]
fn a_page_size_is_coerced_down_but_never_negative() {
    let list = |page_size| {
        let request = pb::ListExportsRequest {
            page_size,
            ..Default::default()
        };
        list_from_proto(request, TenantId::default(), &tokens())
    };
    assert_eq!(list(0).unwrap().rows_max, PAGE_SIZE_DEFAULT);
    assert_eq!(list(7).unwrap().rows_max, 7);
    assert_eq!(list(i32::MAX).unwrap().rows_max, PAGE_SIZE_MAX);
    refused(list(-1), &["page_size"]);
}

#[test]
fn a_listing_names_every_bad_field() {
    let request = pb::ListExportsRequest {
        page_size: -5,
        page_token: "garbage".to_owned(),
        states: vec![1, 0, 7],
        labels: [(String::new(), String::new())].into(),
        created_after: Some(prost_types::Timestamp {
            seconds: 0,
            nanos: -1,
        }),
        created_before: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
    };
    refused(
        list_from_proto(request, TenantId::default(), &tokens()),
        &[
            "states[1]",
            "states[2]",
            "page_size",
            "labels.",
            "created_after",
            "created_before",
            "page_token",
        ],
    );
}

#[test]
fn a_page_token_goes_on_where_the_page_ended() {
    let mut request = pb::ListExportsRequest {
        states: vec![4],
        created_after: Some(prost_types::Timestamp {
            seconds: -1,
            nanos: 500_000_000,
        }),
        ..Default::default()
    };
    let list = |request: &pb::ListExportsRequest| {
        list_from_proto(request.clone(), TenantId::default(), &tokens())
    };
    let first = list(&request).unwrap();
    let half_a_second_before: Timestamp = "1969-12-31T23:59:59.5Z".parse().unwrap();
    assert_eq!(first.created_after, Some(half_a_second_before));
    let last = ListCursor {
        created_at: Timestamp::UNIX_EPOCH,
        id: ExportId::generate(),
    };
    request.page_token = tokens().page(&first, last);
    assert_eq!(list(&request).unwrap().after, Some(last));
    request.states.clear();
    refused(list(&request), &["page_token"]);
}

#[test]
fn moments_are_from_year_1_to_year_9999() {
    let after = |seconds, nanos| {
        let request = pb::ListExportsRequest {
            created_after: Some(prost_types::Timestamp { seconds, nanos }),
            ..Default::default()
        };
        list_from_proto(request, TenantId::default(), &tokens())
    };
    let (first, last) = (-62_135_596_800, 253_402_207_200 - 1);
    for seconds in [first, 0, last] {
        assert!(after(seconds, 0).unwrap().created_after.is_some());
    }
    refused(after(first - 1, 999_999_999), &["created_after"]);
    refused(after(253_402_300_800, 0), &["created_after"]);
}

#[test]
fn a_download_counts_from_zero() {
    let download = |offset, limit| {
        download_from_proto(pb::DownloadResultRequest {
            export_id: ID.to_owned(),
            offset,
            limit,
        })
    };
    let all = download(0, 0).unwrap();
    assert_eq!((all.offset_bytes, all.limit_bytes), (0, None));
    assert_eq!(download(5, 9).unwrap().limit_bytes, Some(9));
    refused(download(-1, -1), &["offset", "limit"]);
}

fn by_spec() -> pb::StreamRowsRequest {
    pb::StreamRowsRequest {
        target: Some(pb::stream_rows_request::Target::Spec(spec())),
        ..Default::default()
    }
}

fn by_id() -> pb::StreamRowsRequest {
    pb::StreamRowsRequest {
        target: Some(pb::stream_rows_request::Target::ExportId(ID.to_owned())),
        ..Default::default()
    }
}

fn stream(request: pb::StreamRowsRequest) -> Result<StreamRows, Failure> {
    stream_rows_from_proto(request, &tokens())
}

#[test]
fn a_stream_has_defaults() {
    let rows = stream(by_spec()).unwrap();
    assert_eq!(rows.encoding, RowEncoding::Values);
    assert_eq!(rows.heartbeat, Duration::from_secs(15));
    assert_eq!((rows.batch_rows_max, rows.batch_bytes_max), (None, None));
    assert!(matches!(rows.target, StreamTarget::Spec(_)));
}

#[test]
fn a_stream_names_every_bad_field() {
    refused(
        stream(pb::StreamRowsRequest {
            target: None,
            resume_token: "garbage".to_owned(),
            encoding: 4,
            resume: 5,
            max_batch_rows: -1,
            max_batch_bytes: -1,
            heartbeat: seconds(0),
        }),
        &[
            "encoding",
            "resume",
            "resume_token",
            "target",
            "max_batch_rows",
            "max_batch_bytes",
            "heartbeat",
        ],
    );
    let mut request = by_spec();
    request.heartbeat = seconds(301);
    refused(stream(request), &["heartbeat"]);
}

#[test]
fn a_live_stream_has_no_file_format() {
    let mut request = by_spec();
    let Some(pb::stream_rows_request::Target::Spec(spec)) = &mut request.target else {
        panic!();
    };
    spec.format = Some(pb::Format {
        kind: Some(pb::format::Kind::Csv(pb::Csv::default())),
    });
    refused(stream(request), &["spec.format"]);
}

#[test]
fn a_guarantee_that_cant_be_given_is_refused() {
    let cases = [
        (by_spec(), pb::Resume::Keyset),
        (by_spec(), pb::Resume::Snapshot),
        (by_spec(), pb::Resume::Spooled),
        (by_id(), pb::Resume::Keyset),
        (by_id(), pb::Resume::Snapshot),
    ];
    for (mut request, resume) in cases {
        request.resume = resume.into();
        let failure = stream(request).unwrap_err();
        assert_eq!(failure.code, Code::FailedPrecondition);
        assert_eq!(failure.reason, "RESUME_UNAVAILABLE");
        assert!(failure.message.contains(resume.as_str_name()));
    }
}

#[test]
fn a_spool_gives_tokens_unless_none_are_wanted() {
    for (resume, expected) in [
        (pb::Resume::Unspecified, Guarantee::Spooled),
        (pb::Resume::Spooled, Guarantee::Spooled),
        (pb::Resume::None, Guarantee::None),
    ] {
        let mut request = by_id();
        request.resume = resume.into();
        let StreamTarget::Export { guarantee, .. } = stream(request).unwrap().target else {
            panic!();
        };
        assert_eq!(guarantee, expected);
    }
    let mut request = by_spec();
    request.resume = pb::Resume::None.into();
    stream(request).unwrap();
}

#[test]
fn a_token_resumes_its_own_export_in_its_own_encoding() {
    let point = ResumePoint {
        export: ExportId::parse(ID).unwrap(),
        fence: crate::export::Fence(2),
        row: 99,
        encoding: RowEncoding::JsonLines,
    };
    let with = |mut request: pb::StreamRowsRequest, encoding: pb::RowEncoding, point| {
        request.resume_token = tokens().resume(point);
        request.encoding = encoding.into();
        stream(request)
    };
    let rows = with(by_id(), pb::RowEncoding::JsonLines, &point).unwrap();
    let StreamTarget::Export { from, .. } = rows.target else {
        panic!();
    };
    assert_eq!(from, Some(point));

    let other = ResumePoint {
        export: ExportId::generate(),
        ..point
    };
    for result in [
        with(by_id(), pb::RowEncoding::JsonLines, &other),
        with(by_id(), pb::RowEncoding::Values, &point),
        with(by_spec(), pb::RowEncoding::JsonLines, &point),
    ] {
        assert_eq!(result.as_ref().unwrap_err().reason, "RESUME_TOKEN_MISMATCH");
        refused(result, &["resume_token"]);
    }
}

#[test]
fn pausing_is_for_one_tenant_or_for_all() {
    assert_eq!(pause_tenant_from_proto(String::new()).unwrap(), None);
    assert_eq!(
        pause_tenant_from_proto("acme".to_owned()).unwrap(),
        Some(TenantId("acme".to_owned()))
    );
    refused(pause_tenant_from_proto("  ".to_owned()), &["tenant"]);
}
