//! One run of a model: its own thread pool, progress that can be watched, and a way to stop it.
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::{Error, Result};

/// Shared between the workers and whoever watches them.
#[derive(Default)]
pub struct Progress {
    done: AtomicUsize,
    total: AtomicUsize,
    cancelled: AtomicBool,
}

impl Progress {
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Asks the workers to stop after the piece each has in hand.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }

    /// `f` of every item on all threads of the current pool, results in order.
    pub fn each<I: Send, T: Send>(&self, items: Vec<I>, f: impl Fn(I) -> T + Sync) -> Result<Vec<T>> {
        self.total.fetch_add(items.len(), Ordering::Relaxed);
        items
            .into_par_iter()
            .map(|item| {
                self.check()?;
                let value = f(item);
                self.done.fetch_add(1, Ordering::Relaxed);
                Ok(value)
            })
            .collect()
    }

    /// `f` of 0, 1, ... n - 1 on all threads of the current pool, results in order.
    pub fn map<T: Send>(&self, n: usize, f: impl Fn(usize) -> T + Sync) -> Result<Vec<T>> {
        self.each((0..n).collect(), f)
    }
}

/// Runs `f` on a pool of its own. rayon's global pool is never used: it hangs in processes forked from R.
pub fn on_threads<T: Send>(threads: usize, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|error| Error::Internal(format!("No {threads} worker threads could be started: {error}.")))?
        .install(f)
}
