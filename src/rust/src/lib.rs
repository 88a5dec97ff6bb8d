//! The only Rust that sees R: conversion between R vectors and core types, nothing else.
//!
//! No `Err` and no panic may reach extendr: its `throw_r_error` hands the text to `Rf_error` as a format string, so a
//! `%` in it crashes R. Every function returns through [`guard`], which turns both into an R condition object that
//! R/rust.R raises.
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use extendr_api::prelude::*;
use kaichi_core::{io, Error};

static QUIET_PANICS: Once = Once::new();

fn guard(f: impl FnOnce() -> kaichi_core::Result<Robj>) -> Robj {
    // The default hook would print a backtrace on the user's console.
    QUIET_PANICS.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => condition(&error),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            condition(&Error::Internal(format!(
                "A defect in kaichi stopped the work ({text}). Please report it with the input that shows it."
            )))
        }
    }
}

/// An R condition, to be raised by R itself.
fn condition(error: &Error) -> Robj {
    let class = format!("kaichi_error_{}", error.kind());
    let mut robj: Robj = list!(message = error.to_string(), call = NULL).into();
    let set = robj.set_class([class.as_str(), "kaichi_error", "error", "condition"]);
    debug_assert!(set.is_ok());
    robj
}

/// Reads an .h5ad: list(p, i, x, guides, cells, batch).
/// @noRd
#[extendr]
fn rs_read_h5ad(path: &str, layer: Nullable<String>, batch: Nullable<String>) -> Robj {
    guard(|| {
        let layer: Option<String> = layer.into();
        let batch: Option<String> = batch.into();
        let file = io::h5ad::read(std::path::Path::new(path), layer.as_deref(), batch.as_deref())?;
        Ok(list!(
            p = file.indptr,
            i = file.guides,
            x = file.counts,
            guides = file.guide_names,
            cells = file.cell_names,
            batch = file.batch.map_or(Robj::from(()), Robj::from)
        )
        .into())
    })
}

extendr_module! {
    mod kaichi;
    fn rs_read_h5ad;
}
