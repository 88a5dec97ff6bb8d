//! The HDF5 filter zstd (32015), which HDF5 itself does not have: for reading, so that no plugin is needed.
use std::ffi::{c_uint, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use hdf5_sys::h5::{H5allocate_memory, H5free_memory};
use hdf5_sys::h5z::{H5Z_class2_t, H5Z_filter_t, H5Zfilter_avail, H5Zregister, H5Z_CLASS_T_VERS, H5Z_FLAG_REVERSE};
use ruzstd::decoding::FrameDecoder;

/// As registered with the HDF Group.
pub const ID: H5Z_filter_t = 32015;

/// The most that one chunk is taken to hold; HDF5's own limit.
const LARGEST: usize = u32::MAX as usize;

/// The bytes decoded into `out`, or none where these are no zstd frames or `out` is too short for them. HDF5 calls this, and no
/// panic may unwind into it.
pub fn decode(bytes: &[u8], out: &mut [u8]) -> Option<usize> {
    catch_unwind(AssertUnwindSafe(|| FrameDecoder::new().decode_all(bytes, out).ok())).ok().flatten()
}

/// Makes the filter known to HDF5, unless a plugin did.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let class = H5Z_class2_t {
            version: H5Z_CLASS_T_VERS as _,
            id: ID,
            encoder_present: 0,
            decoder_present: 1,
            name: c"zstd".as_ptr(),
            can_apply: None,
            set_local: None,
            filter: Some(filter),
        };
        // SAFETY: HDF5's lock is held; HDF5 copies the class.
        hdf5::sync::sync(|| unsafe {
            if H5Zfilter_avail(ID) <= 0 {
                H5Zregister((&raw const class).cast());
            }
        });
    });
}

/// Called by HDF5 with a chunk. Returns the bytes decoded, 0 where it cannot be.
unsafe extern "C" fn filter(
    flags: c_uint,
    _: usize,
    _: *const c_uint,
    n: usize,
    size: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    if flags & H5Z_FLAG_REVERSE as c_uint == 0 {
        return 0;
    }
    // SAFETY: HDF5 gives a buffer of `n` bytes or more, of its own allocator, and takes one in its place.
    unsafe {
        let bytes = std::slice::from_raw_parts((*buffer).cast::<u8>(), n);
        let Some(length) = content_size(bytes) else { return 0 };
        let out = H5allocate_memory(length, 1);
        if out.is_null() {
            return 0;
        }
        let decoded = decode(bytes, std::slice::from_raw_parts_mut(out.cast::<u8>(), length));
        if decoded != Some(length) {
            H5free_memory(out);
            return 0;
        }
        H5free_memory(*buffer);
        *buffer = out;
        *size = length;
        length
    }
}

/// What the head of the frame says. The filter of the HDF Group's plugin always says it.
fn content_size(bytes: &[u8]) -> Option<usize> {
    let head = || {
        let mut decoder = FrameDecoder::new();
        decoder.init(bytes).ok()?;
        usize::try_from(decoder.content_size()).ok().filter(|size| (1..=LARGEST).contains(size))
    };
    catch_unwind(head).ok().flatten()
}
