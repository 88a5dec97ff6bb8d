//! HDF5, and its filter deflate (gzip) by the zlib in Rust that kaichi has already.
use std::ffi::{c_int, c_uint, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

extern "C" {
    fn H5allocate_memory(size: usize, clear: bool) -> *mut c_void;
    fn H5free_memory(memory: *mut c_void) -> c_int;
}

/// H5Z_FLAG_REVERSE: decode.
const REVERSE: c_uint = 0x0100;

/// Bytes of the largest chunk; HDF5's own limit.
const LARGEST: usize = u32::MAX as usize;

/// The filter: called by HDF5 with a chunk, gives the bytes that it has then, 0 where it cannot be done.
///
/// # Safety
/// As HDF5 calls it: `buffer` is memory of its own allocator of `size` bytes, of which the first `n` are the chunk, and it takes one
/// such buffer in its place; `values` are `n_values` numbers.
#[no_mangle]
pub unsafe extern "C" fn kaichi_hdf5_deflate(
    flags: c_uint,
    n_values: usize,
    values: *const c_uint,
    n: usize,
    size: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    // SAFETY: see above.
    unsafe {
        if (*buffer).is_null() || n > *size || n_values != 1 || values.is_null() || *values > 9 {
            return 0;
        }
        let chunk = std::slice::from_raw_parts((*buffer).cast::<u8>(), n);
        let level = *values;
        // No panic may unwind into HDF5.
        let coded = catch_unwind(AssertUnwindSafe(|| match flags & REVERSE {
            0 => deflate(chunk, level),
            _ => inflate(chunk, *size),
        }));
        let Ok(Some(bytes)) = coded else { return 0 };
        let out = H5allocate_memory(bytes.len(), false);
        if bytes.is_empty() || out.is_null() {
            return 0;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast::<u8>(), bytes.len());
        H5free_memory(*buffer);
        *buffer = out;
        *size = bytes.len();
        bytes.len()
    }
}

/// None where the stream is damaged or ends early, and where there is no memory.
fn inflate(chunk: &[u8], room: usize) -> Option<Vec<u8>> {
    let mut stream = Decompress::new(true);
    let mut out = Vec::new();
    loop {
        let (read, written) = (stream.total_in() as usize, out.len());
        out.try_reserve(written.max(room).clamp(1, LARGEST)).ok()?;
        let status = stream.decompress_vec(chunk.get(read..)?, &mut out, FlushDecompress::None).ok()?;
        let stalled = stream.total_in() as usize == read && out.len() == written;
        match status {
            Status::StreamEnd => return Some(out),
            _ if stalled || out.len() > LARGEST => return None,
            _ => {}
        }
    }
}

/// None where the result is not shorter, for which HDF5 stores the chunk as it is, and where there is no memory.
fn deflate(chunk: &[u8], level: u32) -> Option<Vec<u8>> {
    let mut stream = Compress::new(Compression::new(level), true);
    let mut out = Vec::new();
    out.try_reserve_exact(chunk.len()).ok()?;
    let status = stream.compress_vec(chunk, &mut out, FlushCompress::Finish).ok()?;
    (status == Status::StreamEnd).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deflated_is_inflated() {
        let sound: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(i) % 251) as u8).collect();
        for level in [0, 1, 4, 9] {
            let deflated = deflate(&sound, level);
            assert_eq!(deflated.is_none(), level == 0);
            let Some(deflated) = deflated else { continue };
            for room in [0, 1, deflated.len(), sound.len(), 10 * sound.len()] {
                assert_eq!(inflate(&deflated, room).as_ref(), Some(&sound), "{room}");
            }
            for length in 0..deflated.len() - 1 {
                assert!(length > 100 && length % 97 != 0 || inflate(&deflated[..length], 10).is_none(), "{length}");
            }
        }
        assert!(inflate(b"this is no zlib stream", 100).is_none());
    }
}
