//! Vectors read on all threads of the current pool, in compressed chunks or as they lie in the file: HDF5's own path takes one, and
//! an older zlib.
//!
//! Anything but values of the stored type, behind one of the codecs below, or shuffle and that, is left to HDF5, as is a damaged
//! chunk, for its error text.
use std::path::Path;

use flate2::{Decompress, FlushDecompress, Status};
use hdf5::filters::Filter;
use hdf5::Dataset;
use rayon::prelude::*;

use super::values::{FromBytes, Stored};
use super::{unchunked, zstd};

/// How the work on a vector went.
pub enum Converted {
    All,
    /// The first value that does not convert, with its position.
    Refused(usize, f64),
    /// A chunk is sound but holds another number of values: HDF5 would take what is in its memory for the rest.
    Damaged,
    /// HDF5 has to read this vector.
    NotHere,
}

/// Bytes of the largest chunk that is read here: some are in memory for each thread.
const LARGEST: usize = 1 << 26;

/// A chunk as the file holds it.
struct Raw {
    bytes: Vec<u8>,
    /// A bit for each filter of the pipeline that was skipped.
    skipped: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Codec {
    Gzip,
    Lzf,
    Zstd,
}

impl Codec {
    fn of(filter: &Filter) -> Option<Self> {
        match filter {
            Filter::Deflate(_) => Some(Codec::Gzip),
            Filter::LZF => Some(Codec::Lzf),
            Filter::User(id, _) if *id == zstd::ID => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// Decodes into `out`: the bytes there were, or none where this cannot be decoded, or not into that many.
    fn decode(self, bytes: &[u8], out: &mut [u8]) -> Option<usize> {
        match self {
            Codec::Gzip => {
                let mut stream = Decompress::new(true);
                let status = stream.decompress(bytes, out, FlushDecompress::Finish);
                matches!(status, Ok(Status::StreamEnd)).then_some(stream.total_out() as usize)
            }
            Codec::Lzf => {
                let decoded = lzf::decompress(bytes, out.len()).ok()?;
                out.get_mut(..decoded.len())?.copy_from_slice(&decoded);
                Some(decoded.len())
            }
            Codec::Zstd => zstd::decode(bytes, out),
        }
    }
}

struct Layout {
    /// Places of the filters in the pipeline.
    shuffle: Option<usize>,
    codec: (Codec, usize),
    /// Values of a chunk; the last one is stored in full length.
    chunk: usize,
}

/// The numbers of a vector in that file from the place `first`, as many as `out` takes. Those of another type than T are HDF5's.
pub fn numbers<T: Stored, O: Send>(
    path: &Path,
    dataset: &Dataset,
    first: usize,
    out: &mut [O],
    convert: &(impl Fn(f64) -> Option<O> + Sync),
) -> Converted {
    let checked = |value: T| convert(value.to_f64()).ok_or(value.to_f64());
    match dataset.dtype() {
        Ok(dtype) if dtype.is::<T>() => self::convert(path, dataset, first, out, &checked),
        _ => Converted::NotHere,
    }
}

/// The values of a vector in that file, whose stored type is T, from the place `first`, as many as `out` takes.
pub fn convert<T: FromBytes, O: Send>(
    path: &Path,
    dataset: &Dataset,
    first: usize,
    out: &mut [O],
    convert: &(impl Fn(T) -> Result<O, f64> + Sync),
) -> Converted {
    match unchunked::convert(path, dataset, first, out, convert) {
        Converted::NotHere => in_chunks(dataset, first, out, convert),
        done => done,
    }
}

fn in_chunks<T: FromBytes, O: Send>(
    dataset: &Dataset,
    first: usize,
    out: &mut [O],
    convert: &(impl Fn(T) -> Result<O, f64> + Sync),
) -> Converted {
    let Some(layout) = layout::<T>(dataset) else { return Converted::NotHere };
    // The part of each chunk that is asked for; the first may begin and the last may end within theirs.
    let mut parts: Vec<(usize, &mut [O])> = vec![];
    let (mut at, mut rest) = (first, out);
    while !rest.is_empty() {
        let n = (layout.chunk - at % layout.chunk).min(rest.len());
        let (part, more) = rest.split_at_mut(n);
        parts.push((at, part));
        (at, rest) = (at + n, more);
    }
    // Some chunks for each thread, so that a slow one delays no other.
    for parts in parts.chunks_mut(4 * rayon::current_num_threads()) {
        let raw: Option<Vec<Raw>> = parts.iter().map(|(at, _)| read_raw(dataset, at - at % layout.chunk)).collect();
        let Some(raw) = raw else { return Converted::NotHere };
        let converted: Vec<Converted> = parts
            .par_iter_mut()
            .zip(&raw)
            .map_init(Vec::new, |buffer, ((at, out), raw)| {
                layout.convert(raw, buffer, *at % layout.chunk, out, convert)
            })
            .collect();
        for ((at, _), converted) in parts.iter().zip(converted) {
            match converted {
                Converted::All => {}
                Converted::Refused(position, value) => return Converted::Refused(at - first + position, value),
                other => return other,
            }
        }
    }
    Converted::All
}

fn layout<T>(dataset: &Dataset) -> Option<Layout> {
    let (shuffle, codec) = match &dataset.filters()[..] {
        [codec] => (None, (Codec::of(codec)?, 0)),
        [Filter::Shuffle, codec] => (Some(0), (Codec::of(codec)?, 1)),
        _ => return None,
    };
    let chunk = match dataset.chunk()?[..] {
        [chunk] if chunk > 0 && chunk * size_of::<T>() <= LARGEST => chunk,
        _ => return None,
    };
    Some(Layout { shuffle, codec, chunk })
}

impl Layout {
    fn convert<T: FromBytes, O>(
        &self,
        raw: &Raw,
        buffer: &mut Vec<u8>,
        from: usize,
        out: &mut [O],
        convert: impl Fn(T) -> Result<O, f64>,
    ) -> Converted {
        let ran = |filter: usize| raw.skipped & (1 << filter) == 0;
        let (codec, place) = self.codec;
        let bytes = match ran(place) {
            true => {
                buffer.resize(self.chunk * size_of::<T>(), 0);
                match codec.decode(&raw.bytes, buffer) {
                    Some(length) if length == buffer.len() => {}
                    Some(_) => return Converted::Damaged,
                    None => return Converted::NotHere,
                }
                buffer
            }
            false => &raw.bytes,
        };
        if bytes.len() != self.chunk * size_of::<T>() {
            return Converted::NotHere;
        }
        let shuffled = self.shuffle.is_some_and(ran);
        for (position, out) in out.iter_mut().enumerate() {
            let mut value = [0; 16];
            let place = from + position;
            for byte in 0..size_of::<T>() {
                // Shuffle stores the first bytes of all values, then the second ones, and so on.
                value[byte] = bytes[if shuffled { byte * self.chunk + place } else { place * size_of::<T>() + byte }];
            }
            match convert(T::from_bytes(value)) {
                Ok(converted) => *out = converted,
                Err(value) => return Converted::Refused(position, value),
            }
        }
        Converted::All
    }
}

/// The chunk that starts at that value, or none where the file does not hold it.
fn read_raw(dataset: &Dataset, start: usize) -> Option<Raw> {
    use hdf5_sys::h5::{herr_t, hsize_t};
    use hdf5_sys::h5d::H5Dread_chunk2;
    use hdf5_sys::h5i::hid_t;
    use hdf5_sys::h5p::H5P_DEFAULT;
    extern "C" {
        fn H5Dget_chunk_storage_size(dataset: hid_t, offset: *const hsize_t, size: *mut hsize_t) -> herr_t;
    }
    let (offset, mut size, mut skipped) = (start as hsize_t, 0, 0);
    hdf5::sync::sync(|| {
        // SAFETY: HDF5's lock is held, the vector has one dimension, and the pointers are valid for the call.
        let found = unsafe { H5Dget_chunk_storage_size(dataset.id(), &offset, &mut size) };
        if found < 0 || size == 0 || size > 2 * LARGEST as hsize_t {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        let mut room = bytes.len();
        let to = bytes.as_mut_ptr().cast();
        // SAFETY: as above, and the buffer has the room that HDF5 is told of.
        let read = unsafe { H5Dread_chunk2(dataset.id(), H5P_DEFAULT, &offset, &mut skipped, to, &mut room) };
        (read >= 0 && room == bytes.len()).then_some(Raw { bytes, skipped })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::quiet::quietly;
    use super::*;

    fn number<T: Stored>(value: T) -> Result<f64, f64> {
        Ok(value.to_f64())
    }

    fn check<T: Stored + std::fmt::Debug>(file: &hdf5::File, name: &str, make: fn(usize) -> T) {
        let values: Vec<T> = (0..10_007).map(make).collect();
        let expected: Vec<f64> = values.iter().map(|value| value.to_f64()).collect();
        for (shuffle, codec) in
            [false, true].into_iter().flat_map(|shuffle| [(shuffle, Codec::Gzip), (shuffle, Codec::Lzf)])
        {
            let builder = file.new_dataset_builder().chunk(1000);
            let builder = if shuffle { builder.shuffle() } else { builder };
            let builder = if codec == Codec::Lzf { builder.lzf() } else { builder.deflate(4) };
            let dataset = builder.with_data(&values).create(format!("{name}-{shuffle}-{codec:?}").as_str()).unwrap();
            let mut out = vec![0.0; values.len()];
            let all = matches!(in_chunks::<T, f64>(&dataset, 0, &mut out, &number), Converted::All);
            assert!(all && out == expected, "{name} {shuffle} {codec:?}");
            for range in [0..7, 3..1000, 999..1001, 1500..7001, 2000..3000, 9990..10_007] {
                let out = &mut out[range.clone()];
                out.fill(-1.0);
                in_chunks::<T, f64>(&dataset, range.start, out, &number);
                assert!(out == &expected[range.clone()], "{name} {shuffle} {codec:?} {range:?}");
            }
        }
    }

    #[test]
    fn chunks_are_what_was_written() {
        let path = std::env::temp_dir().join(format!("kaichi-{}-gzip.h5", std::process::id()));
        quietly(|| {
            let file = hdf5::File::create(&path).unwrap();
            check(&file, "u8", |i| (i % 251) as u8);
            check(&file, "i16", |i| (i as i16).wrapping_mul(77));
            check(&file, "i32", |i| i as i32 * -1001);
            check(&file, "i64", |i| i as i64 * 1_000_003);
            check(&file, "f32", |i| i as f32 / 3.0);
            check(&file, "f64", |i| i as f64 / 7.0);

            let values: Vec<u32> = (0..5000).collect();
            let dataset =
                file.new_dataset_builder().deflate(1).chunk(512).with_data(&values).create("refused").unwrap();
            let below = |limit: u32| move |value: u32| if value < limit { Ok(value) } else { Err(f64::from(value)) };
            let mut out = vec![0; values.len()];
            let got = in_chunks::<u32, u32>(&dataset, 0, &mut out, &below(4321));
            assert!(matches!(got, Converted::Refused(4321, 4321.0)));
            let got = in_chunks::<u32, u32>(&dataset, 700, &mut out[700..], &below(4321));
            assert!(matches!(got, Converted::Refused(3621, 4321.0)));
            // Another type than the stored one, other filters, and no chunks: HDF5's work.
            let numbers = numbers::<i64, u32>(&path, &dataset, 0, &mut [0; 5000], &|_| Some(1));
            assert!(matches!(numbers, Converted::NotHere));
            let other = |dataset: &Dataset| {
                matches!(in_chunks::<i64, u32>(dataset, 0, &mut [0; 5000], &|_| Ok(1)), Converted::NotHere)
            };
            let values: Vec<i64> = (0..5000).collect();
            let builder = || file.new_dataset_builder().chunk(512);
            assert!(other(&builder().deflate(1).fletcher32().with_data(&values).create("fletcher").unwrap()));
            assert!(other(&file.new_dataset_builder().with_data(&values).create("plain").unwrap()));
            // Never written, so that the file holds no chunks.
            assert!(other(&builder().deflate(1).empty::<i64>().shape(5000).create("empty").unwrap()));
        });
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_damaged_chunk_is_left_to_hdf5() {
        use ruzstd::encoding::{compress_to_vec, CompressionLevel};
        let values: Vec<u8> = (0..100).map(|i| i % 7).collect();
        let expected: Vec<f64> = values[..90].iter().map(|&value| f64::from(value)).collect();
        let mut stream = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::new(4));
        std::io::Write::write_all(&mut stream, &values).unwrap();
        let encoded = [
            (Codec::Gzip, stream.finish().unwrap()),
            (Codec::Lzf, lzf::compress(&values).unwrap()),
            (Codec::Zstd, compress_to_vec(&values[..], CompressionLevel::Fastest)),
        ];
        for (codec, bytes) in encoded {
            let layout = Layout { shuffle: None, codec: (codec, 0), chunk: 100 };
            let of = |bytes: Vec<u8>, skipped: u32| {
                let mut out = vec![0.0; 90];
                let raw = Raw { bytes, skipped };
                let done = matches!(layout.convert(&raw, &mut vec![], 0, &mut out, number::<u8>), Converted::All);
                done.then_some(out)
            };
            assert!(bytes.len() < 100, "{codec:?}");
            assert_eq!(of(bytes.clone(), 0), Some(expected.clone()), "{codec:?}");
            assert_eq!(of(values.clone(), 1), Some(expected.clone()));
            assert_eq!(of(values[1..].to_vec(), 1), None);
            for length in 0..bytes.len() - 4 {
                assert_eq!(of(bytes[..length].to_vec(), 0), None, "{codec:?} {length}");
            }
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                let read = of(damaged, 0);
                // zlib keeps a checksum of the content; parts of the header may differ without harm.
                assert!(codec != Codec::Gzip || read.is_none_or(|out| out == expected), "{at}");
            }
        }
    }
}
