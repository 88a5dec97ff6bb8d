//! The core of kaichi: CRISPR guide assignment for Perturb-seq. Knows neither R nor the command line.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used))]
// The places that need it are listed in CONTRIBUTING.md.
#![deny(unsafe_code)]

pub mod counts;
pub mod decide;
pub mod depth;
pub mod diagnose;
pub mod error;
pub mod fit;
pub mod histogram;
pub mod io;
pub mod mixture;
pub mod models;
pub mod run;
pub mod simulate;
pub mod special;
pub mod stream;

pub use error::{Error, Result};
