//! Texts of variable length, read into one memory of ours: HDF5 asks for that of each text by itself, and in a damaged file texts may
//! share their bytes, so that a small file claims any amount.
use std::ffi::{c_char, c_void, CStr};
use std::ops::Range;
use std::path::Path;

use hdf5::types::{TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Dataset, Dataspace, Datatype};
use hdf5_sys::h5d::H5Dread;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::{H5Pclose, H5Pcreate, H5Pset_vlen_mem_manager, H5P_CLS_DATASET_XFER};
use rayon::prelude::*;

use super::heap;

/// Bytes that are asked for at once.
const BLOCK: usize = 1 << 20;

/// How the reading went.
pub enum Texts {
    Read(Vec<Vec<u8>>),
    /// They are longer than they may be.
    TooLong,
    /// HDF5 has to read them: they are of a fixed length, or no texts.
    NotHere,
}

/// Where HDF5 puts the texts, one behind the other. Blocks do not move.
struct Arena {
    blocks: Vec<Vec<u8>>,
    used: usize,
    left: usize,
    is_short: bool,
}

impl Arena {
    /// Null where the texts may not be so long, or there is no memory.
    fn allocate(&mut self, size: usize) -> *mut c_void {
        if size > self.left {
            self.is_short = true;
            return std::ptr::null_mut();
        }
        if self.blocks.last().is_none_or(|block| block.capacity() - self.used < size) {
            let mut block = Vec::new();
            if block.try_reserve_exact(size.max(BLOCK)).is_err() {
                return std::ptr::null_mut();
            }
            self.blocks.push(block);
            self.used = 0;
        }
        let Some(block) = self.blocks.last_mut() else { return std::ptr::null_mut() };
        self.left -= size;
        let at = self.used;
        self.used += size;
        block.spare_capacity_mut()[at..].as_mut_ptr().cast()
    }
}

unsafe extern "C" fn allocate(size: usize, arena: *mut c_void) -> *mut c_void {
    // SAFETY: HDF5 hands back the arena of the read that it is in.
    unsafe { &mut *arena.cast::<Arena>() }.allocate(size)
}

/// All memory is the arena's.
unsafe extern "C" fn free(_: *mut c_void, _: *mut c_void) {}

/// How a read is done.
struct Transfer(hid_t);

impl Transfer {
    /// Into this arena, which outlives it. The caller holds HDF5's lock.
    fn into(arena: *mut Arena) -> hdf5::Result<Self> {
        // SAFETY: the lock is held.
        let transfer = Self(unsafe { H5Pcreate(*H5P_CLS_DATASET_XFER) });
        // SAFETY: as above; where there is no list, HDF5 says so.
        check(unsafe {
            H5Pset_vlen_mem_manager(transfer.0, Some(allocate), arena.cast(), Some(free), std::ptr::null_mut())
        })?;
        Ok(transfer)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // SAFETY: HDF5's lock is held, as where it was made.
        unsafe { H5Pclose(self.0) };
    }
}

fn check(status: i32) -> hdf5::Result<()> {
    if status < 0 {
        return Err(hdf5::Error::query()?);
    }
    Ok(())
}

/// The texts of a range of a vector in that file, which are no longer than `most` bytes altogether.
pub fn read(path: &Path, dataset: &Dataset, range: Range<usize>, most: usize) -> hdf5::Result<Texts> {
    // HDF5 does not convert between character sets.
    let memory = match super::values::descriptor(&dataset.dtype()?) {
        Some(TypeDescriptor::VarLenUnicode) => Datatype::from_type::<VarLenUnicode>()?,
        Some(TypeDescriptor::VarLenAscii) => Datatype::from_type::<VarLenAscii>()?,
        _ => return Ok(Texts::NotHere),
    };
    if let Some(texts) = heap::Texts::of(path, dataset, range.clone()) {
        // HDF5 takes memory for what a text claims to be before it asks for ours.
        if texts.length() > most {
            return Ok(Texts::TooLong);
        }
        if let Some(texts) = texts.read() {
            return Ok(Texts::Read(texts));
        }
    }
    let n = range.len();
    // Each ends with a zero.
    let mut arena = Arena { blocks: Vec::new(), used: 0, left: most.saturating_add(n), is_short: false };
    let mut texts: Vec<*mut c_char> = vec![std::ptr::null_mut(); n];
    let read = hdf5::sync::sync(|| -> hdf5::Result<()> {
        let (from, to) = (dataset.space()?.select(range)?, Dataspace::try_new(n)?);
        let how = Transfer::into(&raw mut arena)?;
        let out = texts.as_mut_ptr().cast();
        // SAFETY: HDF5's lock is held, and `texts` has a place for each text that is selected.
        check(unsafe { H5Dread(dataset.id(), memory.id(), to.id(), from.id(), how.0, out) })
    });
    if arena.is_short {
        return Ok(Texts::TooLong);
    }
    read?;
    let texts: Vec<Text> = texts.into_iter().map(Text).collect();
    Ok(Texts::Read(texts.par_iter().with_min_len(1 << 12).map(Text::bytes).collect()))
}

/// A text in an arena, or none, which is an empty one.
struct Text(*mut c_char);

// SAFETY: nobody writes to the arena any more.
unsafe impl Sync for Text {}

impl Text {
    fn bytes(&self) -> Vec<u8> {
        if self.0.is_null() {
            return Vec::new();
        }
        // SAFETY: HDF5 ended the text with a zero, and the arena outlives this.
        unsafe { CStr::from_ptr(self.0) }.to_bytes().to_vec()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::quiet::quietly;
    use super::*;

    #[test]
    fn texts_are_what_was_written_and_no_longer_than_they_may_be() {
        let path = std::env::temp_dir().join(format!("kaichi-texts-{}.h5", std::process::id()));
        quietly(|| {
            let file = hdf5::File::create(&path).unwrap();
            let long = "x".repeat(3 * BLOCK);
            let written = ["a", "", "h\u{e9}", &long, "end"].map(|text| text.parse::<VarLenUnicode>().unwrap());
            file.new_dataset_builder().with_data(&written).create("texts").unwrap();
            file.new_dataset_builder().with_data(&[1, 2]).create("numbers").unwrap();
            file.flush().unwrap();
            let check = |file: &hdf5::File| {
                let texts = file.dataset("texts").unwrap();
                let read = |range, most| match read(&path, &texts, range, most).unwrap() {
                    Texts::Read(texts) => texts.into_iter().map(|text| String::from_utf8(text).unwrap()).collect(),
                    Texts::TooLong => vec!["too long".to_owned()],
                    Texts::NotHere => vec!["not here".to_owned()],
                };
                assert_eq!(read(0..5, usize::MAX), ["a", "", "h\u{e9}", &long, "end"]);
                assert_eq!(read(1..3, 3), ["", "h\u{e9}"]);
                assert_eq!(read(0..5, BLOCK), ["too long"]);
                let numbers = file.dataset("numbers").unwrap();
                assert!(matches!(super::read(&path, &numbers, 0..2, 9).unwrap(), Texts::NotHere));
            };
            // By HDF5, while the file is open for writing, and then without it.
            assert!(heap::Texts::of(&path, &file.dataset("texts").unwrap(), 0..5).is_none());
            check(&file);
            drop(file);
            let file = hdf5::File::open(&path).unwrap();
            assert!(heap::Texts::of(&path, &file.dataset("texts").unwrap(), 0..5).is_some());
            check(&file);
        });
        std::fs::remove_file(path).unwrap();
    }
}
