//! One run of a model: its own thread pool, progress that can be watched, and a way to stop it.
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use rayon::prelude::*;

use crate::{Error, Result};

/// Shared between the workers and whoever watches them.
#[derive(Default)]
pub struct Progress {
    done: AtomicUsize,
    total: AtomicUsize,
    cancelled: Arc<AtomicBool>,
}

thread_local! {
    /// The flag of the progress that this thread reads a file under.
    static READING: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// An error where whoever watches the reading of this thread has asked it to stop. Readers ask between blocks.
pub fn check_reading() -> Result<()> {
    let cancelled = READING.with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)));
    if cancelled {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
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

    /// Runs a reader that stops, between two blocks, when this is cancelled.
    pub fn reading<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = READING.replace(Some(self.cancelled.clone()));
        let result = read();
        READING.set(before);
        result
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_reader_stops_between_blocks() {
        let progress = Progress::default();
        let mut blocks = 0;
        let read = |blocks: &mut usize| -> Result<()> {
            for block in 0..4 {
                check_reading()?;
                *blocks += 1;
                if block == 1 {
                    progress.cancel();
                }
            }
            Ok(())
        };
        assert_eq!(progress.reading(|| read(&mut blocks)), Err(Error::Interrupted));
        assert_eq!(blocks, 2);
        // Nobody watches now.
        assert_eq!(read(&mut blocks), Ok(()));
    }
}
