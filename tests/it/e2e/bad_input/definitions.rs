//! What a definition fixes stays fixed, whatever a caller sends.

use rowgate::rpc::pb;

use super::{
    refusal::{bad_field, bad_fields},
    shop::{Shop, column, definition},
};

async fn csv(shop: &mut Shop, spec: pb::ExportSpec) -> String {
    let export = shop.succeed(spec).await;
    let request = pb::DownloadResultRequest {
        export_id: export.id,
        ..Default::default()
    };
    String::from_utf8(shop.download(request).await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_and_filters_of_a_definition_hold() {
    for mut shop in Shop::each().await {
        let kind = shop.kind();
        let all = csv(&mut shop, definition("masked")).await;
        assert!(all.starts_with("id,name,amount\n"), "{kind}: {all}");
        assert!(!all.contains("customer"), "{kind}");
        // 100 of each 1000.
        assert_eq!(all.lines().count(), 2001, "{kind}");

        // What the definition left out is not there to be had.
        for text in ["extra", "orders.name", "upper(extra)"] {
            let mut spec = definition("masked");
            spec.columns = vec![column("x", text)];
            let said = bad_field(shop.submit(spec).await, "spec.columns[0].expression");
            assert!(!said.contains("sekrit"), "{kind}: {said}");
        }
        let mut spec = definition("masked");
        spec.columns = vec![column("extra", "")];
        let said = bad_field(shop.submit(spec).await, "spec.columns[0].name");
        assert!(!said.contains("mask("), "{kind}: {said}");
        let mut spec = definition("masked");
        spec.filter = "extra = 'x'".to_owned();
        bad_field(shop.submit(spec).await, "spec.filter");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_filter_sees_masked_values_and_no_more_rows() {
    for mut shop in Shop::each().await {
        let kind = shop.kind();
        // The unmasked value finds nothing, the masked one finds its rows.
        for (filter, found) in [
            ("name = 'customer 7'", 0),
            ("name like '%ustome%'", 0),
            ("name = 'c********7'", 0),
            ("amount >= 100", 0),
            ("amount >= 100 or true", 2000),
            ("amount = 7", 20),
        ] {
            let mut spec = definition("masked");
            spec.filter = filter.to_owned();
            let export = shop.succeed(spec).await;
            let rows = export.result.unwrap().rows;
            if filter.contains('*') {
                assert!(rows > 0, "{kind}: {filter}");
            } else {
                assert_eq!(rows, found, "{kind}: {filter}");
            }
        }
        // What is computed of a column is made of masked values.
        let mut spec = definition("masked");
        spec.columns = vec![column("up", "upper(name)"), column("n", "length(name)")];
        let text = csv(&mut shop, spec).await;
        assert!(text.starts_with("up,n\nC"), "{kind}: {text}");
        assert!(!text.contains("CUSTOMER"), "{kind}: {text}");
        // An expression that fails tells no value.
        let mut spec = definition("masked");
        spec.columns = vec![column("x", "cast(name as bigint)")];
        let failed = shop.fail(spec).await;
        let error = failed.error.unwrap();
        assert_eq!(error.reason, "EXPRESSION_FAILED");
        assert!(!error.message.contains("customer"), "{kind}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fixed_columns_can_be_left_out_and_reordered_not_changed() {
    let mut shop = Shop::sqlite().await;
    let mut spec = definition("masked");
    spec.columns = vec![column("amount", ""), column("name", "")];
    let text = csv(&mut shop, spec).await;
    assert!(text.starts_with("amount,name\n1,c"), "{text}");
    let changed = |change: fn(&mut pb::Column)| {
        let mut spec = definition("masked");
        spec.columns = vec![column("id", ""), column("name", "")];
        change(&mut spec.columns[1]);
        spec
    };
    for spec in [
        changed(|column| column.expression = "upper(name)".to_owned()),
        changed(|column| column.header = "Name".to_owned()),
        changed(|column| column.number_format = "0.00".to_owned()),
        changed(|column| column.width = 12.0),
    ] {
        bad_field(shop.submit(spec).await, "spec.columns[1]");
    }
    // All that is wrong at once.
    let mut spec = changed(|column| column.header = "Name".to_owned());
    spec.columns.push(column("nosuch", ""));
    let fields = ["spec.columns[1]", "spec.columns[2].name"];
    bad_fields(shop.submit(spec).await, &fields);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_masked_and_the_listing_shows_no_sql() {
    let mut shop = Shop::sqlite().await;
    let request = pb::SubmitExportRequest {
        spec: Some(definition("masked")),
        validate_only: true,
        ..Default::default()
    };
    let answer = shop.rowgate.exports.submit_export(request).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.plan.as_ref().unwrap().sample.len(), 10);
    let told = format!("{answer:?}");
    assert!(told.contains("c********1"), "{told}");
    assert!(!told.contains("customer"), "{told}");
    let sources = shop
        .rowgate
        .exports
        .list_sources(pb::ListSourcesRequest {})
        .await
        .unwrap();
    let told = format!("{:?}", sources.into_inner());
    assert!(told.contains("masked") && told.contains("below"));
    super::refusal::says_nothing_secret(&told);
    assert!(!told.contains("select"), "{told}");
}
