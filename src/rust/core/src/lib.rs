//! The core of kaichi: CRISPR guide assignment for Perturb-seq. Knows neither R nor the command line.
#![forbid(clippy::unwrap_used, clippy::expect_used)]

pub mod error;
pub mod io;

pub use error::{Error, Result};
