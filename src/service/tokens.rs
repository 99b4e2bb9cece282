//! Opaque tokens: where a listing goes on, where a row stream goes on.
//!
//! A token says where to continue and grants nothing: whoever presents it still needs the right to read what it names.
//! It is authenticated all the same (HMAC-SHA256 with the key that [`ControlStore::token_key`] keeps), so that only positions
//! that the server gave out come back, from any replica. Owns the tokens' bytes; refuses to know gRPC.
//!
//! ```text
//! base64url( version 1 byte | kind 1 byte | payload, fixed size | HMAC-SHA256 of all before, 32 bytes )
//! page:   created_at in nanoseconds, 16 | export id, 16 | hash of the filters, 32
//! resume: export id, 16 | fence of the result, 8 | row, 8 | encoding, 1
//! ```
//!
//! [`ControlStore::token_key`]: crate::queue::ControlStore::token_key

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    export::{Code, ExportId, Failure, Fence, RowEncoding},
    queue::{ListCursor, ListFilter},
};

const VERSION: u8 = 1;
const HMAC_BYTES: usize = 32;
const PAGE_BYTES: usize = 16 + 16 + 32;
const RESUME_BYTES: usize = 16 + 8 + 8 + 1;

/// No token of ours is longer; what is longer need not be decoded.
const TOKEN_CHARS_MAX: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Page = 1,
    Resume = 2,
}

/// Where a row stream goes on: the first row that the client does not have yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResumePoint {
    pub export: ExportId,
    /// Of the attempt that made the result: another attempt's rows may be others.
    pub fence: Fence,
    /// Counts from 0.
    pub row: u64,
    pub encoding: RowEncoding,
}

impl ResumePoint {
    /// # Errors
    /// INVALID_ARGUMENT / RESUME_TOKEN_MISMATCH when the token was given out for another export, result or encoding.
    pub fn check(
        &self,
        export: ExportId,
        fence: Fence,
        encoding: RowEncoding,
    ) -> Result<(), Failure> {
        let of = if self.export != export {
            "another export"
        } else if self.fence != fence {
            "an earlier result of this export"
        } else if self.encoding != encoding {
            "another encoding"
        } else {
            return Ok(());
        };
        Err(mismatch(of))
    }
}

/// A token can't go with a spec: a new live stream has no tokens yet.
pub fn mismatch(of: &str) -> Failure {
    let violation = Failure::invalid_field(
        "resume_token",
        format!("is a token of {of}; leave it unset to start from row 0"),
    );
    Failure {
        violations: violation.violations,
        ..Failure::new(
            Code::InvalidArgument,
            "RESUME_TOKEN_MISMATCH",
            violation.message,
        )
    }
}

/// Makes and reads tokens.
#[derive(Clone)]
pub struct Tokens {
    mac: Hmac<Sha256>,
}

impl Tokens {
    pub fn new(key: [u8; 32]) -> Self {
        let mac = Hmac::new_from_slice(&key).expect("HMAC takes keys of any length");
        Self { mac }
    }

    /// For `page_token`: the listing under `filter` goes on after `last`.
    pub fn page(&self, filter: &ListFilter, last: ListCursor) -> String {
        let mut payload = Vec::with_capacity(PAGE_BYTES);
        payload.extend(last.created_at.as_nanosecond().to_be_bytes());
        payload.extend(last.id.0.as_bytes());
        payload.extend(filter_hash(filter));
        self.seal(Kind::Page, &payload)
    }

    /// # Errors
    /// INVALID_ARGUMENT for the field `page_token`: no token of ours, or one of a listing with other filters.
    pub fn parse_page(&self, token: &str, filter: &ListFilter) -> Result<ListCursor, Failure> {
        let field = "page_token";
        let payload: [u8; PAGE_BYTES] = self
            .open(Kind::Page, token)
            .ok_or_else(|| malformed(field, "next_page_token of the page before"))?;
        let (nanoseconds, rest) = payload.split_at(16);
        let (id, hash) = rest.split_at(16);
        if hash != filter_hash(filter) {
            return Err(Failure::invalid_field(
                field,
                "belongs to a listing with other filters; repeat the filters of the first page, or leave it unset",
            ));
        }
        let nanoseconds = i128::from_be_bytes(nanoseconds.try_into().expect("16 bytes"));
        Ok(ListCursor {
            created_at: Timestamp::from_nanosecond(nanoseconds)
                .map_err(|error| Failure::internal(format!("authentic page token: {error}")))?,
            id: ExportId(Uuid::from_bytes(id.try_into().expect("16 bytes"))),
        })
    }

    /// For `resume_token`.
    pub fn resume(&self, point: &ResumePoint) -> String {
        let mut payload = Vec::with_capacity(RESUME_BYTES);
        payload.extend(point.export.0.as_bytes());
        payload.extend(point.fence.0.to_be_bytes());
        payload.extend(point.row.to_be_bytes());
        payload.push(point.encoding as u8);
        self.seal(Kind::Resume, &payload)
    }

    /// What the token says; [`ResumePoint::check`] tells whether it belongs here.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for the field `resume_token` when it is no token of ours.
    pub fn parse_resume(&self, token: &str) -> Result<ResumePoint, Failure> {
        let refuse = || malformed("resume_token", "resume_token of the last event received");
        let payload: [u8; RESUME_BYTES] = self.open(Kind::Resume, token).ok_or_else(refuse)?;
        let (id, rest) = payload.split_at(16);
        let (fence, rest) = rest.split_at(8);
        let (row, encoding) = rest.split_at(8);
        Ok(ResumePoint {
            export: ExportId(Uuid::from_bytes(id.try_into().expect("16 bytes"))),
            fence: Fence(i64::from_be_bytes(fence.try_into().expect("8 bytes"))),
            row: u64::from_be_bytes(row.try_into().expect("8 bytes")),
            encoding: RowEncoding::from_number(encoding[0]).ok_or_else(refuse)?,
        })
    }

    fn seal(&self, kind: Kind, payload: &[u8]) -> String {
        let mut bytes = vec![VERSION, kind as u8];
        bytes.extend(payload);
        let tag = self.mac.clone().chain_update(&bytes).finalize();
        bytes.extend(tag.into_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn open<const BYTES: usize>(&self, kind: Kind, token: &str) -> Option<[u8; BYTES]> {
        if token.len() > TOKEN_CHARS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signed, tag) = bytes.split_at_checked(bytes.len().checked_sub(HMAC_BYTES)?)?;
        let mac = self.mac.clone().chain_update(signed);
        mac.verify_slice(tag).ok()?;
        match signed {
            [VERSION, of, payload @ ..] if *of == kind as u8 => payload.try_into().ok(),
            _ => None,
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

fn malformed(field: &str, right: &str) -> Failure {
    Failure::invalid_field(
        field,
        format!("is not a token of this service; send the {right} unchanged"),
    )
}

/// Equal for filters that select the same rows: the page's size and position are not part of it.
fn filter_hash(filter: &ListFilter) -> [u8; 32] {
    let mut states: Vec<i16> = filter.states.iter().map(|state| *state as i16).collect();
    states.sort_unstable();
    states.dedup();
    let selected = (
        &filter.tenant,
        states,
        &filter.labels,
        filter.created_after,
        filter.created_before,
    );
    let json = serde_json::to_vec(&selected).expect("filters have only string keys");
    Sha256::digest(json).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::export::{State, TenantId};

    fn tokens() -> Tokens {
        Tokens::new([7; 32])
    }

    fn filter() -> ListFilter {
        ListFilter {
            tenant: TenantId::default(),
            states: vec![State::Failed, State::Queued],
            labels: BTreeMap::from([("team".to_owned(), "billing".to_owned())]),
            created_after: None,
            created_before: Some(Timestamp::UNIX_EPOCH),
            after: None,
            rows_max: 50,
        }
    }

    fn cursor() -> ListCursor {
        ListCursor {
            created_at: "2026-11-21T22:55:57.123456789Z".parse().unwrap(),
            id: ExportId::generate(),
        }
    }

    fn point() -> ResumePoint {
        ResumePoint {
            export: ExportId::generate(),
            fence: Fence(3),
            row: 1_234_567,
            encoding: RowEncoding::ArrowIpc,
        }
    }

    fn refused<T: fmt::Debug>(result: Result<T, Failure>, reason: &str, field: &str) -> Failure {
        let failure = result.unwrap_err();
        assert_eq!(failure.code, Code::InvalidArgument);
        assert_eq!(failure.reason, reason);
        assert_eq!(failure.violations[0].field, field);
        failure
    }

    #[test]
    fn a_page_token_comes_back_as_it_went() {
        let last = cursor();
        let token = tokens().page(&filter(), last);
        let mut same = filter();
        same.rows_max = 7;
        same.after = Some(last);
        same.states = vec![State::Queued, State::Failed, State::Failed];
        assert_eq!(tokens().parse_page(&token, &same).unwrap(), last);
    }

    #[test]
    fn a_page_token_with_other_filters_is_refused() {
        let token = tokens().page(&filter(), cursor());
        let others: [fn(&mut ListFilter); 5] = [
            |f| f.tenant = TenantId("other".to_owned()),
            |f| f.states.clear(),
            |f| f.labels.clear(),
            |f| f.created_after = f.created_before,
            |f| f.created_before = None,
        ];
        for change in others {
            let mut other = filter();
            change(&mut other);
            let failure = refused(
                tokens().parse_page(&token, &other),
                "INVALID_FIELD",
                "page_token",
            );
            assert!(failure.message.contains("other filters"));
        }
    }

    #[test]
    fn a_resume_token_comes_back_as_it_went() {
        let point = point();
        let token = tokens().resume(&point);
        assert!(
            token
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        );
        let read = tokens().parse_resume(&token).unwrap();
        assert_eq!(read, point);
        read.check(point.export, point.fence, point.encoding)
            .unwrap();
    }

    #[test]
    fn a_resume_token_of_something_else_is_a_mismatch() {
        let point = point();
        for result in [
            point.check(ExportId::generate(), point.fence, point.encoding),
            point.check(point.export, Fence(4), point.encoding),
            point.check(point.export, point.fence, RowEncoding::Values),
        ] {
            refused(result, "RESUME_TOKEN_MISMATCH", "resume_token");
        }
    }

    #[test]
    fn forged_and_foreign_tokens_are_refused() {
        let page = tokens().page(&filter(), cursor());
        let resume = tokens().resume(&point());
        let foreign = Tokens::new([8; 32]).resume(&point());
        let mut bytes = URL_SAFE_NO_PAD.decode(&resume).unwrap();
        bytes[40] ^= 1;
        let forged = URL_SAFE_NO_PAD.encode(&bytes);
        let cut = &resume[..resume.len() - 2];
        let long = resume.repeat(4);
        for token in [
            "",
            "x",
            "not a token!",
            "AAAA",
            &page,
            &foreign,
            &forged,
            cut,
            &long,
        ] {
            refused(
                tokens().parse_resume(token),
                "INVALID_FIELD",
                "resume_token",
            );
        }
        for token in ["", "x", &resume] {
            refused(
                tokens().parse_page(token, &filter()),
                "INVALID_FIELD",
                "page_token",
            );
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let token = tokens().resume(&point());
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert!(tokens().parse_resume(&changed).is_err(), "byte {at}");
        }
    }
}
