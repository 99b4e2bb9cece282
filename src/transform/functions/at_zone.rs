//! `at_zone(ts, 'Asia/Shanghai')`: what the clocks there show at a moment.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, TimestampMicrosecondArray},
    datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
};
use datafusion_common::{
    Result, ScalarValue, exec_datafusion_err, internal_err, plan_datafusion_err, plan_err,
};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use jiff::{Timestamp, tz::TimeZone};

use arrow::datatypes::{Field, FieldRef};

pub(super) fn at_zone() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(AtZone {
        signature: Signature::user_defined(Volatility::Immutable),
    }))
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct AtZone {
    signature: Signature,
}

const RESULT: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl ScalarUDFImpl for AtZone {
    fn name(&self) -> &str {
        "at_zone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [moment, zone] = types else {
            return plan_err!("at_zone takes a timestamp with time zone and the name of a zone");
        };
        let moment = match moment {
            DataType::Timestamp(_, Some(zone)) => {
                DataType::Timestamp(TimeUnit::Microsecond, Some(zone.clone()))
            }
            DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::Timestamp(_, None) => {
                return plan_err!(
                    "at_zone takes a timestamp with time zone, and this has none; if it is in UTC, write at_zone(cast(... as timestamptz), ...)"
                );
            }
            other => {
                return plan_err!(
                    "at_zone takes a timestamp with time zone, not {}",
                    super::super::names::data_type(other)
                );
            }
        };
        match zone {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Ok(vec![moment, DataType::Utf8])
            }
            _ => plan_err!("the zone is written as text, such as 'Asia/Shanghai'"),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(RESULT)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        // Known and valid when an export is submitted, not found wrong when it runs.
        match args.scalar_arguments.get(1) {
            Some(Some(zone)) => drop(zone_of(zone)?),
            _ => return plan_err!("the zone is written as text, such as 'Asia/Shanghai'"),
        }
        Ok(Arc::new(Field::new(self.name(), RESULT, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [moments, ColumnarValue::Scalar(zone)] = args.args.as_slice() else {
            return internal_err!("at_zone was planned with a constant zone");
        };
        let zone = zone_of(zone)?;
        let constant = matches!(moments, ColumnarValue::Scalar(_));
        let moments = moments.to_array(if constant { 1 } else { args.number_rows })?;
        let moments = moments.as_primitive::<TimestampMicrosecondType>();
        let local = moments
            .iter()
            .map(|moment| moment.map(|moment| local(moment, &zone)).transpose())
            .collect::<Result<TimestampMicrosecondArray>>()?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(
                local.is_valid(0).then(|| local.value(0)),
                None,
            )));
        }
        Ok(ColumnarValue::Array(Arc::new(local)))
    }
}

fn zone_of(name: &ScalarValue) -> Result<TimeZone> {
    let Some(Some(name)) = name.try_as_str() else {
        return plan_err!("the zone is written as text, such as 'Asia/Shanghai'");
    };
    TimeZone::get(name).map_err(|_| {
        plan_datafusion_err!("there is no time zone '{name}'; names are those of the IANA, such as 'Asia/Shanghai' or 'UTC'")
    })
}

/// Infinities have no wall clock and stay what they are.
fn local(moment: i64, zone: &TimeZone) -> Result<i64> {
    if moment == i64::MAX || moment == i64::MIN {
        return Ok(moment);
    }
    let timestamp = Timestamp::from_microsecond(moment)
        .map_err(|_| exec_datafusion_err!("at_zone: the timestamp is out of range"))?;
    let offset_us = i64::from(zone.to_offset(timestamp).seconds()) * 1_000_000;
    moment
        .checked_add(offset_us)
        .ok_or_else(|| exec_datafusion_err!("at_zone: the timestamp is out of range"))
}
