//! Row streams: live ones hold the table, stored ones go on byte for byte from every token.

use rowgate::rpc::pb::{self, RowEncoding, stream_rows_request::Target};
use serde_json::{Value, json};

use super::{
    Kind, Shop,
    client::{Streamed, orders},
    files,
};

pub const ENCODINGS: [RowEncoding; 3] = [
    RowEncoding::JsonLines,
    RowEncoding::ArrowIpc,
    RowEncoding::Values,
];

impl Shop {
    /// A live stream of a spec, described to `check.py`.
    pub async fn live(&mut self, spec: pb::ExportSpec, encoding: RowEncoding) -> Value {
        let request = pb::StreamRowsRequest {
            target: Some(Target::Spec(spec)),
            encoding: encoding.into(),
            ..Default::default()
        };
        let streamed = self.stream(request).await;
        assert_eq!(streamed.header.guarantee(), pb::Resume::None);
        assert_eq!(streamed.tokens, [], "a live stream can't go on");
        self.streamed(&streamed, encoding)
    }

    async fn stored(
        &mut self,
        id: &str,
        encoding: RowEncoding,
        token: &str,
        max_batch_rows: i32,
    ) -> Streamed {
        let request = pb::StreamRowsRequest {
            target: Some(Target::ExportId(id.to_owned())),
            encoding: encoding.into(),
            resume_token: token.to_owned(),
            max_batch_rows,
            ..Default::default()
        };
        let streamed = self.stream(request).await;
        assert_eq!(streamed.header.guarantee(), pb::Resume::Spooled);
        streamed
    }
}

/// Segments hold 500 rows and batches at most 64, so that neither ends where the other does.
#[tokio::test(flavor = "multi_thread")]
async fn stored_rows_equal_the_table_and_go_on_from_every_token() {
    let mut shop = Shop::open(Kind::Postgres).await;
    let rows = files::rows(&shop).await;
    let export = shop.export(orders(None)).await;
    assert_eq!(export.result.unwrap().rows, rows);
    let mut results = Vec::new();
    for encoding in ENCODINGS {
        let whole = shop.stored(&export.id, encoding, "", 64).await;
        assert_eq!((whole.footer.rows, whole.header.first_row), (rows, 0));
        assert!(whole.pieces.iter().all(|piece| piece.rows <= 64));
        results.push(shop.streamed(&whole, encoding));
        assert!(
            whole.tokens.len() >= whole.pieces.len(),
            "a token for every batch"
        );
        for (before, token) in &whole.tokens {
            let rest = shop.stored(&export.id, encoding, token, 64).await;
            assert_eq!(
                rest.pieces,
                whole.pieces[*before..],
                "{encoding:?}, after {before} batches"
            );
            assert_eq!(rest.footer.rows, rows);
            assert_eq!(rest.header.arrow_schema, whole.header.arrow_schema);
        }
        // A token is a row: other batches may be asked for from there on.
        let (_, token) = &whole.tokens[whole.tokens.len() / 2];
        let rest = shop.stored(&export.id, encoding, token, 7).await;
        assert!(rest.header.first_row > 0 && rest.pieces.iter().all(|piece| piece.rows <= 7));
        let job = json!({
            "source": shop.source(), "columns": shop.columns(), "results": [shop.streamed(&rest, encoding)],
        });
        shop.check(&job, rows - rest.header.first_row).await;
    }
    let job = json!({"source": shop.source(), "columns": shop.columns(), "results": results});
    shop.check(&job, rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_rows_keep_their_time_zone_columns_and_filter() {
    let mut shop = Shop::open(Kind::Postgres).await;
    let spec = pb::ExportSpec {
        time_zone: "Asia/Kathmandu".to_owned(),
        filter: "id between 1 and 2000".to_owned(),
        columns: ["created_at", "id"]
            .map(|name| pb::Column {
                name: name.to_owned(),
                ..Default::default()
            })
            .to_vec(),
        ..orders(None)
    };
    let export = shop.export(spec).await;
    let mut results = Vec::new();
    for encoding in ENCODINGS {
        let whole = shop.stored(&export.id, encoding, "", 0).await;
        results.push(shop.streamed(&whole, encoding));
    }
    let mut source = shop.source();
    source["where"] = json!("id between 1 and 2000");
    let columns =
        json!([{"name": "created_at", "kind": "timestamptz"}, {"name": "id", "kind": "int"}]);
    let job =
        json!({"source": source, "columns": columns, "zone": "Asia/Kathmandu", "results": results});
    shop.check(&job, 2000).await;
}
