//! The one error type of the core. Every variant is a kind that R sees as class `kaichi_error_<kind>`.

/// What went wrong, in words for the user: names the argument, file, guide or cell and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file is missing, unreadable, or not of the kind its name promises.
    #[error("{0}")]
    File(String),
    /// The file can be opened, but its content breaks its format or uses what is not supported.
    #[error("{0}")]
    Format(String),
    /// The counts are not whole, non-negative numbers in range, or there are none.
    #[error("{0}")]
    Counts(String),
    /// Cell or guide names are duplicated, empty, or do not fit the counts.
    #[error("{0}")]
    Names(String),
    /// No such model, or one that cannot do what was asked.
    #[error("{0}")]
    Model(String),
    /// An argument is out of its range.
    #[error("{0}")]
    Argument(String),
    /// The batch does not fit the cells.
    #[error("{0}")]
    Batch(String),
    /// A defect of kaichi itself.
    #[error("{0}")]
    Internal(String),
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The suffix of the R condition class.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::File(_) => "file",
            Error::Format(_) => "format",
            Error::Counts(_) => "counts",
            Error::Names(_) => "names",
            Error::Model(_) => "model",
            Error::Argument(_) => "argument",
            Error::Batch(_) => "batch",
            Error::Internal(_) => "internal",
            Error::Interrupted => "interrupted",
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
