//! The contract to the domain and back.
//!
//! Requests are checked here and nowhere else as far as that needs no configuration and no database: whatever passes is
//! well-formed, and every violation is named, not only the first. What belongs to later versions is refused, never
//! ignored. Refuses to know who asks and what exists.

mod check;
mod format;
mod limits;
mod request;
mod response;
mod spec;
mod value;

pub use limits::{limits_to_proto, set_limits_from_proto};
pub use request::{
    Download, GetStatus, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, StreamRows, StreamTarget, Submit, Watch,
    download_from_proto, export_id_from_proto, get_status_from_proto, list_from_proto,
    pause_tenant_from_proto, stream_rows_from_proto, submit_from_proto, watch_from_proto,
};
pub use response::{
    admission_to_proto, export_to_proto, failure_to_proto, fields_to_proto, plan_to_proto,
    progress_to_proto, result_to_proto, source_to_proto, worker_to_proto,
};
pub use spec::{spec_from_proto, spec_to_proto};
pub use value::{duration_to_proto, int64, json_to_value, timestamp_to_proto};
