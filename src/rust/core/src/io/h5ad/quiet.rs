//! HDF5 is compiled without its own lock, so all calls of it are made under that of hdf5-metno.

/// Runs `f` under HDF5's lock. `f` must not return HDF5 handles: closing them is an HDF5 call too.
///
/// The first call starts HDF5, which says nothing of its errors but to who asks and leaves its files alone when the process ends:
/// other threads may be at them then. Other packages have an HDF5 of their own and change none of this.
pub fn quietly<T>(f: impl FnOnce() -> T) -> T {
    hdf5::sync::sync(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_wait_for_each_other_and_a_panic_keeps_nobody_waiting() {
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let inside = &inside;
                scope.spawn(move || {
                    let work = || {
                        quietly(|| {
                            use std::sync::atomic::Ordering::SeqCst;
                            assert_eq!(inside.fetch_add(1, SeqCst), 0);
                            // Within itself, too.
                            assert!(quietly(|| hdf5::File::open("no such file").is_err()));
                            assert_eq!(inside.fetch_sub(1, SeqCst), 1);
                            assert!(thread % 2 == 0, "for the test");
                        });
                    };
                    assert_eq!(std::panic::catch_unwind(work).is_ok(), thread % 2 == 0);
                });
            }
        });
    }
}
