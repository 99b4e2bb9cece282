//! The domain: what an export is, in which states it can be, how it can fail, what limits hold for it.
//!
//! Owns the words that every other module uses. Refuses to know about gRPC, databases, Redis, files or threads:
//! it imports nothing of ours.

pub mod failure;
pub mod field;
pub mod ids;
pub mod limits;
pub mod outcome;
pub mod progress;
pub mod spec;
pub mod state;
pub mod stream;

pub use failure::{Code, Failure, Violation};
pub use field::Field;
pub use ids::{ExportId, Fence, TenantId, WorkerId};
pub use limits::{Caps, LimitOverrides, Limits};
pub use outcome::{Admission, ColumnFidelity, Execution, ResultInfo, ResultKind};
pub use progress::{Progress, StageProgress};
pub use spec::{Column, ExportSpec, Format, ReadFrom, SpecHash, TableRead};
pub use state::State;
pub use stream::{Guarantee, RowEncoding};
