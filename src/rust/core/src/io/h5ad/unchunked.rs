//! Vectors that lie in the file as they are. What was cut short is left to HDF5, for its error text.
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use hdf5::Dataset;
use rayon::prelude::*;

use super::chunks::Converted;
use super::values::FromBytes;

/// Values that a thread reads at once.
const PIECE: usize = 1 << 15;

/// Where a vector of values of so many bytes starts in its file. None where they are not in one piece, or may be in HDF5's memory
/// rather than in the file, because this process has it open for writing.
fn start(dataset: &Dataset, each: usize) -> Option<u64> {
    let whole = dataset.storage_size() == (dataset.size() * each) as u64;
    dataset.offset().filter(|_| whole && dataset.file().is_ok_and(|file| file.is_read_only()))
}

/// See [`super::chunks::convert`].
pub fn convert<T: FromBytes, O: Send>(
    path: &Path,
    dataset: &Dataset,
    first: usize,
    out: &mut [O],
    convert: &(impl Fn(T) -> Result<O, f64> + Sync),
) -> Converted {
    let Some(start) = start(dataset, size_of::<T>()) else { return Converted::NotHere };
    let piece = |file: &mut File, bytes: &mut Vec<u8>, at: usize, out: &mut [O]| {
        bytes.resize(out.len() * size_of::<T>(), 0);
        let place = SeekFrom::Start(start.saturating_add(((first + at) * size_of::<T>()) as u64));
        if file.seek(place).and_then(|_| file.read_exact(bytes)).is_err() {
            return Converted::NotHere;
        }
        for (position, (out, stored)) in out.iter_mut().zip(bytes.chunks_exact(size_of::<T>())).enumerate() {
            let mut value = [0; 16];
            value[..size_of::<T>()].copy_from_slice(stored);
            match convert(T::from_bytes(value)) {
                Ok(converted) => *out = converted,
                Err(value) => return Converted::Refused(at + position, value),
            }
        }
        Converted::All
    };
    let pieces = out.par_chunks_mut(PIECE).enumerate().map_init(
        || (File::open(path), vec![]),
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
        let number = |value: i16| -> Result<f64, f64> { Ok(f64::from(value)) };
        quietly(|| {
            let file = hdf5::File::create(&path).unwrap();
            file.new_dataset_builder().with_data(&values).create("plain").unwrap();
            file.new_dataset_builder().with_data(&values).chunk(1000).create("chunks").unwrap();
            file.new_dataset::<i16>().shape(9).create("unwritten").unwrap();
            let read = |dataset: &Dataset, first: usize, n: usize| {
                let mut out = vec![-1.0; n];
                matches!(convert(&path, dataset, first, &mut out, &number), Converted::All).then_some(out)
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
                let other = convert(&path, &plain, 0, &mut [0.0; 9], &|value: i32| Ok(f64::from(value)));
                assert!(matches!(other, Converted::NotHere));
                let small = |value: i16| if value < 30_000 { Ok(()) } else { Err(f64::from(value)) };
                let refused = convert(&path, &plain, 5, &mut vec![(); values.len() - 5], &small);
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
