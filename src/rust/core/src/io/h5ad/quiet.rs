//! HDF5 has one automatic error handler per process, and R packages that share the library install theirs: that of
//! rhdf5 raises an R error from within the failing call, which would jump over Rust frames with HDF5's lock held.
use std::ffi::c_void;

use hdf5_sys::h5e::{H5E_auto2_t, H5Eget_auto2, H5Eset_auto2, H5E_DEFAULT};

struct Handler {
    function: H5E_auto2_t,
    data: *mut c_void,
}

impl Handler {
    /// Takes the handler out. The caller holds HDF5's lock.
    fn take() -> Option<Self> {
        let mut handler = Handler { function: None, data: std::ptr::null_mut() };
        // SAFETY: both pointers are valid for writes during the call; a null handler is allowed; the lock is held.
        let saved = unsafe { H5Eget_auto2(H5E_DEFAULT, &mut handler.function, &mut handler.data) >= 0 };
        // SAFETY: as above.
        unsafe { H5Eset_auto2(H5E_DEFAULT, None, std::ptr::null_mut()) };
        saved.then_some(handler)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // SAFETY: function and data were registered together by whoever set them, and go back unchanged; the lock is
        // held, because `quietly` drops the handler before its lock.
        unsafe { H5Eset_auto2(H5E_DEFAULT, self.function, self.data) };
    }
}

/// Runs `f` under HDF5's lock without an automatic error handler, then puts the handler back, also after a panic.
/// `f` must not return HDF5 handles: closing them is an HDF5 call too.
pub fn quietly<T>(f: impl FnOnce() -> T) -> T {
    let _lock = hdf5_sys::LOCK.lock();
    // Before hdf5's own start, which clears the handler for good.
    let _handler = Handler::take();
    hdf5::sync::sync(f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static CALLS: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count_call(_stack: hdf5_sys::h5i::hid_t, _data: *mut c_void) -> hdf5_sys::h5::herr_t {
        CALLS.fetch_add(1, Ordering::SeqCst);
        0
    }

    #[test]
    fn a_foreign_handler_is_not_called_and_is_put_back() {
        // Held throughout: the handler is global, and other tests use HDF5 too.
        let _lock = hdf5_sys::LOCK.lock();
        quietly(|| ());
        let mut data = 0u8;
        // SAFETY: the lock is held and `data` outlives the registration, which ends below.
        unsafe { H5Eset_auto2(H5E_DEFAULT, Some(count_call), (&raw mut data).cast()) };
        assert!(quietly(|| hdf5::File::open("no such file").is_err()));
        let panicked = std::panic::catch_unwind(|| quietly(|| panic!("for the test")));
        assert!(panicked.is_err());
        assert_eq!(CALLS.load(Ordering::SeqCst), 0);
        let back = Handler::take();
        let back = back.as_ref().map(|handler| (handler.function.is_some(), handler.data));
        assert_eq!(back, Some((true, (&raw mut data).cast())));
        // SAFETY: as above.
        unsafe { H5Eset_auto2(H5E_DEFAULT, None, std::ptr::null_mut()) };
    }
}
