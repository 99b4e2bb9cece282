//! What was done to values that Excel can't hold, counted by column.

use std::collections::BTreeMap;

use crate::{
    export::{ColumnFidelity, spec::Overflow},
    format::Error,
};

/// What becomes of a value that a cell can't hold as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Treatment {
    DigitsAsText,
    DateAsText,
    NanAsText,
    TextCut,
    ControlEscaped,
    MicrosecondsCut,
    EmptyTextAsBlank,
}

impl Treatment {
    const ALL: [Self; 7] = [
        Self::DigitsAsText,
        Self::DateAsText,
        Self::NanAsText,
        Self::TextCut,
        Self::ControlEscaped,
        Self::MicrosecondsCut,
        Self::EmptyTextAsBlank,
    ];

    /// The key in the fidelity report.
    fn key(self) -> &'static str {
        match self {
            Self::DigitsAsText => "digits_as_text",
            Self::DateAsText => "date_as_text",
            Self::NanAsText => "nan_as_text",
            Self::TextCut => "text_cut",
            Self::ControlEscaped => "control_escaped",
            Self::MicrosecondsCut => "microseconds_cut",
            Self::EmptyTextAsBlank => "empty_text_as_blank",
        }
    }

    /// Reason and message under `Overflow::Error`. An empty text is no overflow: nobody can see the difference in a
    /// sheet, so it is counted under both policies and fails no export.
    fn refusal(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::DigitsAsText => Some((
                "VALUE_TOO_PRECISE",
                "a number that Excel can't hold exactly: it keeps 15 digits",
            )),
            Self::DateAsText => Some((
                "VALUE_OUT_OF_RANGE",
                "a date or time outside Excel's range, 1900-01-01 to 9999-12-31",
            )),
            Self::NanAsText => Some((
                "VALUE_OUT_OF_RANGE",
                "NaN and infinity have no place in Excel",
            )),
            Self::TextCut => Some((
                "VALUE_TOO_LONG",
                "a text over Excel's 32,767 characters (UTF-16 units)",
            )),
            Self::ControlEscaped => Some((
                "VALUE_CONTROL_CHARACTER",
                "a text with control characters, which Excel can't hold",
            )),
            Self::MicrosecondsCut => Some((
                "VALUE_TOO_PRECISE",
                "a time whose last digits an Excel date can't hold",
            )),
            Self::EmptyTextAsBlank => None,
        }
    }
}

/// Decides by the policy, and counts.
#[derive(Debug)]
pub(super) struct Ledger {
    overflow: Overflow,
    columns: Vec<(String, [u64; Treatment::ALL.len()])>,
}

impl Ledger {
    pub(super) fn new(overflow: Overflow, columns: impl Iterator<Item = String>) -> Self {
        Self {
            overflow,
            columns: columns
                .map(|name| (name, [0; Treatment::ALL.len()]))
                .collect(),
        }
    }

    /// # Errors
    /// [`Error::Value`] where the policy is to fail.
    pub(super) fn note(
        &mut self,
        row: usize,
        column: usize,
        treatment: Treatment,
    ) -> Result<(), Error> {
        let (name, counts) = &mut self.columns[column];
        if self.overflow == Overflow::Error
            && let Some((reason, message)) = treatment.refusal()
        {
            return Err(Error::Value {
                reason,
                row: row as u64,
                column: name.clone(),
                message: message.to_owned(),
            });
        }
        counts[treatment as usize] += 1;
        Ok(())
    }

    /// Only columns and treatments that occurred.
    pub(super) fn report(self) -> Vec<ColumnFidelity> {
        self.columns
            .into_iter()
            .map(|(column, counts)| ColumnFidelity {
                column,
                counts: Treatment::ALL
                    .iter()
                    .map(|treatment| (treatment.key().to_owned(), counts[*treatment as usize]))
                    .filter(|(_, count)| *count > 0)
                    .collect::<BTreeMap<_, _>>(),
            })
            .filter(|fidelity| !fidelity.counts.is_empty())
            .collect()
    }
}
