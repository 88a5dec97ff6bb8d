//! Vectors that lie in the file as they are, read on all threads of the current pool: HDF5's own path takes one.
//!
//! What was cut short, or is of another type than asked for, is left to HDF5, for its conversion and its error text.
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use hdf5::Dataset;
use rayon::prelude::*;

use super::chunks::Converted;
use super::values::Stored;

/// Values that a thread reads at once.
const PIECE: usize = 1 << 15;

/// Where a vector lies in its file.
pub struct Unchunked<'a> {
    path: &'a Path,
    start: u64,
    /// Bytes of a value.
    each: usize,
}

impl<'a> Unchunked<'a> {
    /// None where the values are not in one piece, or may be in HDF5's memory rather than in the file, because this process has it
    /// open for writing.
    pub fn of(path: &'a Path, dataset: &Dataset, each: usize) -> Option<Self> {
        let whole = dataset.storage_size() == (dataset.size() * each) as u64;
        let start = dataset.offset()?;
        (whole && dataset.file().ok()?.is_read_only()).then_some(Self { path, start, each })
    }

    pub fn open(&self) -> io::Result<File> {
        File::open(self.path)
    }

    /// The bytes of a range of values.
    pub fn read(&self, file: &mut File, range: Range<usize>, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.resize(range.len() * self.each, 0);
        file.seek(SeekFrom::Start(self.start + (range.start * self.each) as u64))?;
        file.read_exact(bytes)
    }
}

/// The values of a vector in that file from the place `first`, as many as `out` takes.
pub fn convert<T: Stored, O: Send>(
    path: &Path,
    dataset: &Dataset,
    first: usize,
    out: &mut [O],
    convert: &(impl Fn(f64) -> Option<O> + Sync),
) -> Converted {
    let is_stored = dataset.dtype().is_ok_and(|dtype| dtype.is::<T>());
    let Some(vector) = Unchunked::of(path, dataset, size_of::<T>()).filter(|_| is_stored) else {
        return Converted::NotHere;
    };
    let piece = |file: &mut File, bytes: &mut Vec<u8>, at: usize, out: &mut [O]| {
        if vector.read(file, first + at..first + at + out.len(), bytes).is_err() {
            return Converted::NotHere;
        }
        for (position, (out, stored)) in out.iter_mut().zip(bytes.chunks_exact(size_of::<T>())).enumerate() {
            let mut value = [0; 8];
            value[..size_of::<T>()].copy_from_slice(stored);
            let value = T::from_bytes(value).to_f64();
            match convert(value) {
                Some(converted) => *out = converted,
                None => return Converted::Refused(at + position, value),
            }
        }
        Converted::All
    };
    let pieces = out.par_chunks_mut(PIECE).enumerate().map_init(
        || (vector.open(), vec![]),
        |(file, bytes), (number, out)| match file {
            Ok(file) => piece(file, bytes, number * PIECE, out),
            Err(_) => Converted::NotHere,
        },
    );
    let pieces: Vec<Converted> = pieces.collect();
    pieces.into_iter().find(|piece| !matches!(piece, Converted::All)).unwrap_or(Converted::All)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::quiet::quietly;
    use super::*;

    #[test]
    fn values_are_what_was_written() {
        let path = std::env::temp_dir().join(format!("kaichi-{}-unchunked.h5", std::process::id()));
        let values: Vec<i16> = (0..3 * PIECE as i32 + 17).map(|i| (i % 30_011) as i16).collect();
        quietly(|| {
            let file = hdf5::File::create(&path).unwrap();
            file.new_dataset_builder().with_data(&values).create("plain").unwrap();
            file.new_dataset_builder().with_data(&values).chunk(1000).create("chunks").unwrap();
            file.new_dataset::<i16>().shape(9).create("unwritten").unwrap();
            let read = |dataset: &Dataset, first: usize, n: usize| {
                let mut out = vec![-1.0; n];
                matches!(convert::<i16, f64>(&path, dataset, first, &mut out, &Some), Converted::All).then_some(out)
            };
            // Not where it may still be in memory.
            assert_eq!(read(&file.dataset("plain").unwrap(), 0, 9), None);
            drop(file);
            for user_block in [0, 512] {
                if user_block > 0 {
                    let bytes = [vec![7; user_block], std::fs::read(&path).unwrap()].concat();
                    std::fs::write(&path, bytes).unwrap();
                }
                let file = hdf5::File::open(&path).unwrap();
                let plain = file.dataset("plain").unwrap();
                let expected: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
                for range in [0..values.len(), 3..9, PIECE - 1..2 * PIECE + 1, values.len() - 2..values.len()] {
                    assert_eq!(read(&plain, range.start, range.len()).as_deref(), Some(&expected[range]));
                }
                for other in ["chunks", "unwritten"] {
                    assert_eq!(read(&file.dataset(other).unwrap(), 0, 9), None);
                }
                let other = convert::<u16, f64>(&path, &plain, 0, &mut [0.0; 9], &Some);
                assert!(matches!(other, Converted::NotHere));
                let small = |value: f64| (value < 30_000.0).then_some(());
                let refused = convert::<i16, ()>(&path, &plain, 5, &mut vec![(); values.len() - 5], &small);
                assert!(matches!(refused, Converted::Refused(29_995, 30_000.0)));
            }
            // Cut short under HDF5.
            let file = hdf5::File::open(&path).unwrap();
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4000).unwrap();
            assert_eq!(read(&file.dataset("plain").unwrap(), 0, values.len()), None);
        });
        std::fs::remove_file(&path).unwrap();
    }
}
