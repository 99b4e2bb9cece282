//! `Limits` of the AdminService.

use std::{collections::BTreeMap, ops::RangeInclusive};

use super::{
    check::Check,
    value::{int32, int64},
};
use crate::{
    export::{Failure, LimitOverrides, Limits},
    queue::LimitChange,
    rpc::pb,
};

const MIB: i64 = 1024 * 1024;
/// Less would not hold one batch of each stage.
const MEMORY_BUDGET_BYTES: RangeInclusive<i64> = 16 * MIB..=1024 * 1024 * MIB;
const QUEUE_BYTES: RangeInclusive<i64> = 64 * 1024..=64 * 1024 * MIB;
const QUEUE_BATCHES: RangeInclusive<i32> = 1..=10_000;
const BATCH_ROWS: RangeInclusive<i32> = 1..=1_048_576;
const TRANSFORM_WORKERS: RangeInclusive<i32> = 1..=1024;
/// 0 lets none run.
const SLOTS: RangeInclusive<i32> = 0..=100_000;
const MAP_ENTRIES_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 256;
const RESET_MAX: usize = 1000;

const FIELDS: [&str; 10] = [
    "memory_budget_bytes",
    "queue_bytes",
    "queue_batches",
    "batch_rows",
    "transform_workers",
    "worker_slots",
    "inline_slots",
    "stream_slots",
    "source_slots",
    "tenant_slots",
];
const MAPS: [&str; 2] = ["source_slots", "tenant_slots"];
/// Always false in this version: nothing is stored of it, so that to reset it is to do nothing.
const AUTOMATIC: &str = "automatic";

/// # Errors
/// INVALID_ARGUMENT with every violation; `automatic = true` is one.
pub fn set_limits_from_proto(request: pb::SetLimitsRequest) -> Result<LimitChange, Failure> {
    let mut check = Check::default();
    let limits = request.limits.unwrap_or_default();
    if limits.automatic == Some(true) {
        check.refuse(
            "limits.automatic",
            "automatic sizing is not supported by this version; leave it unset",
        );
    }
    let set = overrides(&mut check, limits);
    check.count("reset", request.reset.len(), RESET_MAX);
    let names = request.reset.into_iter().take(RESET_MAX).enumerate();
    let reset = names
        .filter_map(|(i, name)| {
            reset_name(&mut check, &format!("reset[{i}]"), &name, &set);
            (name != AUTOMATIC).then_some(name)
        })
        .collect();
    check.finish(LimitChange { set, reset })
}

fn overrides(check: &mut Check, limits: pb::Limits) -> LimitOverrides {
    let mut bytes = |name: &str, number: Option<i64>, range| {
        let number = number?;
        check.in_range(&format!("limits.{name}"), number, range);
        u64::try_from(number).ok()
    };
    let memory_budget_bytes = bytes(
        "memory_budget_bytes",
        limits.memory_budget_bytes,
        MEMORY_BUDGET_BYTES,
    );
    let queue_bytes = bytes("queue_bytes", limits.queue_bytes, QUEUE_BYTES);
    let mut count = |name: &str, number: Option<i32>, range| {
        let number = number?;
        check.in_range(&format!("limits.{name}"), number, range);
        u32::try_from(number).ok()
    };
    LimitOverrides {
        memory_budget_bytes,
        queue_bytes,
        queue_batches: count("queue_batches", limits.queue_batches, QUEUE_BATCHES),
        batch_rows: count("batch_rows", limits.batch_rows, BATCH_ROWS),
        transform_workers: count(
            "transform_workers",
            limits.transform_workers,
            TRANSFORM_WORKERS,
        ),
        worker_slots: count("worker_slots", limits.worker_slots, SLOTS),
        inline_slots: count("inline_slots", limits.inline_slots, SLOTS),
        stream_slots: count("stream_slots", limits.stream_slots, SLOTS),
        source_slots: slots(check, "source_slots", limits.source_slots),
        tenant_slots: slots(check, "tenant_slots", limits.tenant_slots),
    }
}

fn slots(check: &mut Check, map: &str, slots: BTreeMap<String, i32>) -> BTreeMap<String, u32> {
    check.count(&format!("limits.{map}"), slots.len(), MAP_ENTRIES_MAX);
    let slots = slots.into_iter().map(|(name, number)| {
        let field = format!("limits.{map}.{name}");
        check.in_range(&field, number, SLOTS);
        let right = "send a name, or * for the default";
        let name = check.required(&field, name, NAME_BYTES_MAX, right);
        (name, u32::try_from(number).unwrap_or_default())
    });
    slots.collect()
}

fn reset_name(check: &mut Check, field: &str, name: &str, set: &LimitOverrides) {
    let of_map = name
        .split_once('.')
        .filter(|(map, key)| MAPS.contains(map) && !key.is_empty());
    if of_map.is_none() && !FIELDS.contains(&name) && name != AUTOMATIC {
        let nearest = FIELDS
            .into_iter()
            .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        check.refuse(
            field,
            format!(
                "{name:?} is no limit; did you mean {}? Entries of maps are source_slots.NAME and tenant_slots.NAME",
                nearest.unwrap_or_default()
            ),
        );
    } else if is_set(set, name, of_map) {
        check.refuse(field, format!("{name} is both set and reset; choose one"));
    }
}

fn is_set(set: &LimitOverrides, name: &str, of_map: Option<(&str, &str)>) -> bool {
    match (of_map, name) {
        (Some(("source_slots", key)), _) => set.source_slots.contains_key(key),
        (Some((_, key)), _) => set.tenant_slots.contains_key(key),
        (None, "memory_budget_bytes") => set.memory_budget_bytes.is_some(),
        (None, "queue_bytes") => set.queue_bytes.is_some(),
        (None, "queue_batches") => set.queue_batches.is_some(),
        (None, "batch_rows") => set.batch_rows.is_some(),
        (None, "transform_workers") => set.transform_workers.is_some(),
        (None, "worker_slots") => set.worker_slots.is_some(),
        (None, "inline_slots") => set.inline_slots.is_some(),
        (None, "stream_slots") => set.stream_slots.is_some(),
        (None, "source_slots") => !set.source_slots.is_empty(),
        (None, "tenant_slots") => !set.tenant_slots.is_empty(),
        (None, _) => false,
    }
}

pub fn limits_to_proto(limits: &Limits) -> pb::Limits {
    let slots = |slots: &BTreeMap<String, u32>| {
        let slots = slots.iter();
        slots
            .map(|(name, slots)| (name.clone(), int32(*slots)))
            .collect()
    };
    pb::Limits {
        memory_budget_bytes: Some(int64(limits.memory_budget_bytes)),
        queue_bytes: Some(int64(limits.queue_bytes)),
        queue_batches: Some(int32(limits.queue_batches)),
        batch_rows: Some(int32(limits.batch_rows)),
        transform_workers: Some(int32(limits.transform_workers)),
        worker_slots: Some(int32(limits.worker_slots)),
        inline_slots: Some(int32(limits.inline_slots)),
        stream_slots: Some(int32(limits.stream_slots)),
        source_slots: slots(&limits.source_slots),
        tenant_slots: slots(&limits.tenant_slots),
        automatic: Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Code;

    fn change(limits: pb::Limits, reset: &[&str]) -> Result<LimitChange, Failure> {
        set_limits_from_proto(pb::SetLimitsRequest {
            limits: Some(limits),
            reset: reset.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    #[test]
    fn absent_is_unchanged_and_zero_slots_are_a_limit() {
        let limits = pb::Limits {
            queue_batches: Some(3),
            worker_slots: Some(0),
            source_slots: BTreeMap::from([("*".to_owned(), 2)]),
            automatic: Some(false),
            ..Default::default()
        };
        let reset = ["batch_rows", "tenant_slots.acme", "automatic"];
        let change = change(limits, &reset).unwrap();
        let set = LimitOverrides {
            queue_batches: Some(3),
            worker_slots: Some(0),
            source_slots: BTreeMap::from([("*".to_owned(), 2)]),
            ..Default::default()
        };
        assert_eq!(change.set, set);
        assert_eq!(change.reset, ["batch_rows", "tenant_slots.acme"]);
    }

    #[test]
    fn every_bad_limit_is_named() {
        let limits = pb::Limits {
            memory_budget_bytes: Some(-1),
            queue_bytes: Some(1),
            queue_batches: Some(0),
            batch_rows: Some(i32::MAX),
            transform_workers: Some(0),
            worker_slots: Some(-1),
            inline_slots: Some(-1),
            stream_slots: Some(-1),
            source_slots: BTreeMap::from([("shop".to_owned(), -1)]),
            tenant_slots: BTreeMap::from([(String::new(), 1)]),
            automatic: Some(true),
        };
        let failure = change(limits, &["batch_row", "source_slots."]).unwrap_err();
        assert_eq!(failure.code, Code::InvalidArgument);
        let fields: Vec<_> = failure.violations.iter().map(|v| &v.field[..]).collect();
        assert_eq!(
            fields,
            [
                "limits.automatic",
                "limits.memory_budget_bytes",
                "limits.queue_bytes",
                "limits.queue_batches",
                "limits.batch_rows",
                "limits.transform_workers",
                "limits.worker_slots",
                "limits.inline_slots",
                "limits.stream_slots",
                "limits.source_slots.shop",
                "limits.tenant_slots.",
                "reset[0]",
                "reset[1]",
            ]
        );
        assert!(failure.violations[11].description.contains("batch_rows?"));
    }

    #[test]
    fn a_limit_is_not_set_and_reset_at_once() {
        let limits = pb::Limits {
            batch_rows: Some(10),
            tenant_slots: BTreeMap::from([("acme".to_owned(), 1)]),
            ..Default::default()
        };
        for name in ["batch_rows", "tenant_slots", "tenant_slots.acme"] {
            let failure = change(limits.clone(), &[name]).unwrap_err();
            assert_eq!(failure.violations[0].field, "reset[0]");
        }
        change(limits, &["tenant_slots.other", "source_slots"]).unwrap();
    }

    #[test]
    fn what_is_in_force_is_told_in_full() {
        let limits = Limits {
            memory_budget_bytes: 1,
            queue_bytes: 2,
            queue_batches: 3,
            batch_rows: 4,
            transform_workers: 5,
            worker_slots: 6,
            inline_slots: 7,
            stream_slots: 8,
            source_slots: BTreeMap::from([("*".to_owned(), 9)]),
            tenant_slots: BTreeMap::from([("*".to_owned(), u32::MAX)]),
        };
        let told = limits_to_proto(&limits);
        assert_eq!(told.memory_budget_bytes, Some(1));
        assert_eq!(told.stream_slots, Some(8));
        assert_eq!(told.source_slots["*"], 9);
        assert_eq!(told.tenant_slots["*"], i32::MAX);
        assert_eq!(told.automatic, Some(false));
    }
}
