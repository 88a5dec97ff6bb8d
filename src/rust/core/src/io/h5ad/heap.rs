//! Texts of variable length where they lie: in collections of the global heap, some hundred to each, which follow one another about
//! as the texts do. HDF5 looks for every text by itself, on one thread.
//!
//! Format: HDF5 File Format Specification, III.E, "Global Heap". What does not follow it, or would take far more reading than
//! the texts are long, is left to HDF5, for its error text.
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use hdf5::Dataset;
use rayon::prelude::*;

use super::chunks::{self, Converted};

/// Texts that a thread reads at once.
const PIECE: usize = 1 << 12;
/// Bytes that are fetched at once.
const FETCHED: usize = 1 << 16;
/// Collections that HDF5 fills at once, and so goes back to.
const OPEN: usize = 16;
/// Bytes of the head of a collection, and of that of each text in it.
const HEAD: usize = 16;

/// The texts of a vector in a file whose addresses and lengths have 8 bytes.
pub struct Texts<'a> {
    path: &'a Path,
    /// Where addresses are counted from.
    base: u64,
    references: Vec<Reference>,
}

/// How a vector refers to a text: its length, and the address of its collection and its number there.
type Reference = [u8; 16];

impl<'a> Texts<'a> {
    /// A range of the vector; None where HDF5 has to read it.
    pub fn of(path: &'a Path, dataset: &Dataset, range: Range<usize>) -> Option<Self> {
        let file = dataset.file().ok()?;
        let made = file.fcpl().ok()?;
        let sizes = made.sizes();
        if !file.is_read_only() || (sizes.sizeof_addr, sizes.sizeof_size) != (8, 8) {
            return None;
        }
        let mut references = vec![[0; 16]; range.len()];
        match chunks::convert(path, dataset, range.start, &mut references, &Ok) {
            Converted::All => Some(Self { path, base: made.userblock(), references }),
            _ => None,
        }
    }

    /// How long the texts say they are altogether.
    pub fn length(&self) -> usize {
        length(&self.references)
    }

    pub fn read(&self) -> Option<Vec<Vec<u8>>> {
        let mut texts = vec![];
        // All threads touch the memory first.
        self.references.par_iter().with_min_len(PIECE).map(|_| vec![]).collect_into_vec(&mut texts);
        let pieces = texts.par_chunks_mut(PIECE).zip(self.references.par_chunks(PIECE));
        pieces.map(|(texts, references)| self.piece(references, texts)).collect::<Option<()>>()?;
        Some(texts)
    }

    fn piece(&self, references: &[Reference], texts: &mut [Vec<u8>]) -> Option<()> {
        let most = size_of_val(references) + length(references);
        let file = BufReader::with_capacity(FETCHED, File::open(self.path).ok()?);
        // As much again for the heads and gaps of collections, and what belongs to the texts before and after.
        let left = most.saturating_mul(4).saturating_add(FETCHED);
        let mut heap = Heap { file, at: 0, left, collections: vec![] };
        for (text, reference) in texts.iter_mut().zip(references) {
            *text = self.text(reference, &mut heap)?;
        }
        Some(())
    }

    fn text(&self, reference: &Reference, heap: &mut Heap) -> Option<Vec<u8>> {
        let (length, address, number) = (u32_at(reference, 0)?, u64_at(reference, 4)?, u32_at(reference, 12)?);
        if length == 0 || address == 0 {
            return Some(vec![]);
        }
        let text = heap.object(self.base.checked_add(address)?, number)?;
        if text.len() != length as usize {
            return None;
        }
        // HDF5 ends texts with a zero in memory, and so does this one if it holds one.
        Some(text.split(|&byte| byte == 0).next()?.to_vec())
    }
}

fn length(references: &[Reference]) -> usize {
    let lengths = references.iter().filter_map(|reference| u32_at(reference, 0));
    lengths.fold(0, |sum: usize, length| sum.saturating_add(length as usize))
}

struct Heap {
    file: BufReader<File>,
    /// Where the file is read next.
    at: u64,
    /// Bytes that may still be read.
    left: usize,
    /// Those that were read last.
    collections: Vec<Collection>,
}

struct Collection {
    address: u64,
    bytes: Vec<u8>,
    /// Where the object of each number is among the bytes.
    objects: Vec<Range<usize>>,
}

impl Heap {
    fn object(&mut self, collection: u64, number: u32) -> Option<&[u8]> {
        let place = match self.collections.iter().rposition(|known| known.address == collection) {
            Some(place) => place,
            None => {
                if self.collections.len() == OPEN {
                    self.collections.remove(0);
                }
                let collection = self.read(collection)?;
                self.collections.push(collection);
                self.collections.len() - 1
            }
        };
        let Collection { bytes, objects, .. } = &self.collections[place];
        bytes.get(objects.get(number as usize)?.clone())
    }

    fn read(&mut self, address: u64) -> Option<Collection> {
        // What is near is in the buffer already.
        match i64::try_from(i128::from(address) - i128::from(self.at)) {
            Ok(by) => self.file.seek_relative(by).ok()?,
            Err(_) => self.file.seek(SeekFrom::Start(address)).map(drop).ok()?,
        }
        self.at = address;
        let mut head = [0; HEAD];
        self.file.read_exact(&mut head).ok()?;
        let size = usize::try_from(u64_at(&head, 8)?).ok()?;
        if !head.starts_with(b"GCOL\x01") || size < HEAD || size > self.left {
            return None;
        }
        self.left -= size;
        let (mut bytes, mut objects) = (vec![0; size - HEAD], vec![]);
        self.file.read_exact(&mut bytes).ok()?;
        self.at += size as u64;
        let mut at = 0;
        while at + HEAD <= bytes.len() {
            let number = usize::from(u16::from_le_bytes(*bytes[at..].first_chunk()?));
            if number == 0 {
                // What is free, to the end.
                break;
            }
            let (start, size) = (at + HEAD, usize::try_from(u64_at(&bytes, at + 8)?).ok()?);
            let end = start.checked_add(size).filter(|&end| end <= bytes.len())?;
            if objects.len() <= number {
                objects.resize(number + 1, 0..0);
            }
            objects[number] = start..end;
            at = end.next_multiple_of(8);
        }
        Some(Collection { address, bytes, objects })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::quiet::quietly;
    use super::*;
    use hdf5::types::VarLenUnicode;

    /// Some 300 to a collection, but for one that has its own.
    fn written() -> Vec<String> {
        let text = |i: usize| if i == 4321 { "long".repeat(FETCHED) } else { "é".repeat(i % 7) };
        (0..3 * PIECE + 7).map(text).collect()
    }

    fn write(path: &Path) {
        let texts: Vec<VarLenUnicode> = written().iter().map(|text| text.parse().unwrap()).collect();
        let file = hdf5::File::create(path).unwrap();
        file.new_dataset_builder().with_data(&texts).create("texts").unwrap();
        let many: Vec<VarLenUnicode> = (0..60_000).map(|i| i.to_string().parse().unwrap()).collect();
        file.new_dataset_builder().with_data(&many).create("many").unwrap();
        file.new_dataset_builder().with_data(&texts).chunk(1000).deflate(1).create("gzip").unwrap();
        file.new_dataset_builder().with_data(&texts).chunk(1000).shuffle().lzf().create("lzf").unwrap();
        file.new_dataset_builder().with_data(&texts[..9]).chunk(4).create("chunks").unwrap();
    }

    fn read(path: &Path, name: &str, range: Range<usize>) -> Option<Vec<Vec<u8>>> {
        let file = hdf5::File::open(path).unwrap();
        let dataset = file.dataset(name).unwrap();
        Texts::of(path, &dataset, range)?.read()
    }

    #[test]
    fn texts_are_what_was_written() {
        let path = std::env::temp_dir().join(format!("kaichi-{}-heap.h5", std::process::id()));
        let expected: Vec<Vec<u8>> = written().into_iter().map(String::into_bytes).collect();
        quietly(|| {
            write(&path);
            for user_block in [0, 1024] {
                let bytes = [vec![7; user_block], std::fs::read(&path).unwrap()].concat();
                std::fs::write(&path, bytes).unwrap();
                for range in [0..expected.len(), 0..1, 4000..5000, 4321..4322, expected.len() - 3..expected.len()] {
                    for name in ["texts", "gzip", "lzf"] {
                        let read = read(&path, name, range.clone());
                        assert!(read == Some(expected[range.clone()].to_vec()), "{name} {range:?}");
                    }
                }
                assert_eq!(read(&path, "chunks", 0..9), None);
            }
            // HDF5 may not yet have written what it was given.
            let file = hdf5::File::open_rw(&path).unwrap();
            assert!(Texts::of(&path, &file.dataset("texts").unwrap(), 0..9).is_none());
        });
        std::fs::remove_file(&path).unwrap();
    }

    /// Whatever is said of where texts are: other texts are read, or none, but nothing is left to chance or without end.
    #[test]
    fn damaged_references_are_left_to_hdf5() {
        let path = std::env::temp_dir().join(format!("kaichi-{}-heap-damaged.h5", std::process::id()));
        quietly(|| {
            write(&path);
            let file = hdf5::File::open(&path).unwrap();
            let dataset = file.dataset("texts").unwrap();
            let all = Texts::of(&path, &dataset, 0..5000).unwrap();
            let of = |length: u32, address: u64, number: u32| -> Reference {
                let mut reference = [0; 16];
                reference[..4].copy_from_slice(&length.to_le_bytes());
                reference[4..12].copy_from_slice(&address.to_le_bytes());
                reference[12..].copy_from_slice(&number.to_le_bytes());
                reference
            };
            let read =
                |references: &[Reference]| Texts { path: &path, base: 0, references: references.to_vec() }.read();
            let parts = |of: &Reference| (u32_at(of, 0).unwrap(), u64_at(of, 4).unwrap(), u32_at(of, 12).unwrap());
            let (long, short) = (all.references[4321], all.references[5]);
            let (length, address, number) = parts(&short);
            assert_eq!(of(length, address, number), short);
            assert_eq!(Texts::of(&path, &dataset, 1..3).unwrap().length(), "é".len() + "éé".len());
            assert_eq!(read(&[short]), Some(vec!["é".repeat(5).into_bytes()]));
            assert_eq!(read(&[of(0, address, number), of(length, 0, number)]), Some(vec![vec![], vec![]]));
            for (length, address, number) in [
                (length + 1, address, number),
                (length - 1, address, number),
                (length, address + 8, number),
                (length, u64::MAX, number),
                (length, u64::MAX - 7, number),
                (length, 1 << 62, number),
                (length, address, 0),
                (length, address, 1 << 16),
                (length, address, u32::MAX),
            ] {
                assert_eq!(read(&[of(length, address, number)]), None, "{length} {address} {number}");
            }
            assert!(read(&[all.references[9], long, short].repeat(9)).is_some());
            // But not all of a file for a few short texts.
            let many = Texts::of(&path, &file.dataset("many").unwrap(), 0..60_000).unwrap();
            assert!(many.read().is_some());
            let mut each = many.references.clone();
            each.dedup_by_key(|reference| parts(reference).1);
            assert!(each.len() > OPEN && read(&each[..1]).is_some());
            assert_eq!(read(&each), None);
        });
        std::fs::remove_file(&path).unwrap();
    }

    /// A collection whose bytes are changed one by one.
    #[test]
    fn damaged_collections_are_left_to_hdf5() {
        let path = std::env::temp_dir().join(format!("kaichi-{}-heap-collection.h5", std::process::id()));
        quietly(|| {
            write(&path);
            let sound = std::fs::read(&path).unwrap();
            let expected = read(&path, "texts", 0..60).unwrap();
            let start = {
                let file = hdf5::File::open(&path).unwrap();
                let texts = Texts::of(&path, &file.dataset("texts").unwrap(), 5..6).unwrap();
                u64_at(&texts.references[0], 4).unwrap() as usize
            };
            let mut refused = 0;
            for at in start..start + 400 {
                let mut damaged = sound.clone();
                damaged[at] ^= 0x11;
                std::fs::write(&path, &damaged).unwrap();
                match read(&path, "texts", 0..60) {
                    None => refused += 1,
                    // A text, what fills it up, or what is not looked at.
                    Some(texts) => assert!(texts.iter().zip(&expected).filter(|(a, b)| a != b).count() <= 1, "{at}"),
                }
            }
            assert!(refused > 100, "{refused}");
        });
        std::fs::remove_file(&path).unwrap();
    }
}
