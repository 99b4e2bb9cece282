//! Pages of `ListExports` over more exports, and larger ones, than are read at once.

use std::collections::BTreeSet;

use rowgate::rpc::pb::{self, Execution};

use super::{
    bad_input::shop::{Shop, sql, table},
    rig::{queue, submit, submit_as},
};

/// All pages, each as the ids in it.
async fn pages(shop: &Shop, page_size: i32) -> Vec<Vec<String>> {
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListExportsRequest {
            page_size,
            page_token,
            ..Default::default()
        };
        let page = shop.rowgate.exports.clone().list_exports(request).await;
        let page = page.unwrap().into_inner();
        pages.push(page.exports.into_iter().map(|export| export.id).collect());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return pages;
        }
    }
}

fn sizes(pages: &[Vec<String>]) -> Vec<usize> {
    pages.iter().map(Vec::len).collect()
}

async fn paused() -> Shop {
    let shop = Shop::sqlite().await;
    let pause = pb::PauseQueueRequest::default();
    shop.rowgate.admin.clone().pause_queue(pause).await.unwrap();
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_bring_every_export_once_and_the_newest_first() {
    let shop = paused().await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(queue(&shop.rowgate.exports, table("orders")).await);
    }
    ids.reverse();
    for (page_size, expected) in [
        (0, vec![40]),
        (40, vec![40]),
        (39, vec![39, 1]),
        (17, vec![17, 17, 6]),
        (16, vec![16, 16, 8]),
        (8, vec![8; 5]),
    ] {
        let pages = pages(&shop, page_size).await;
        assert_eq!(sizes(&pages), expected);
        assert_eq!(pages.concat(), ids);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_large_specs_ends_before_clients_refuse_it() {
    let shop = paused().await;
    let large = format!("select 1 as one -- {}", "x".repeat(200_000));
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let request = submit_as(sql(&large), Execution::Queued);
        let submitted = submit(&shop.rowgate.exports, request).await.unwrap();
        ids.insert(submitted.export.unwrap().id);
    }
    let pages = pages(&shop, 200).await;
    assert_eq!(sizes(&pages), [15, 5]);
    assert_eq!(pages.concat().into_iter().collect::<BTreeSet<_>>(), ids);
}
