//! Texts of variable length where they lie: in collections of the global heap, some hundred to each, which follow one another as the
//! texts do. HDF5 looks for every text by itself, on one thread.
//!
//! Format: HDF5 File Format Specification, III.E, "Global Heap". What does not follow it, or would take far more reading than
//! the texts are long, is left to HDF5, for its error text.
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use hdf5::Dataset;
use rayon::prelude::*;

use super::unchunked::Unchunked;

/// Bytes by which a vector refers to a text: its length, and the address of its collection and its number there.
pub const REFERENCE: usize = 16;
/// Texts that a thread reads at once.
const PIECE: usize = 1 << 12;
/// Bytes that are fetched at once.
const FETCHED: usize = 1 << 16;
/// Bytes of the head of a collection, and of that of each text in it.
const HEAD: usize = 16;

/// A vector of texts in a file whose addresses and lengths have 8 bytes.
pub struct Texts<'a> {
    references: Unchunked<'a>,
    /// Where addresses are counted from.
    base: u64,
}

impl<'a> Texts<'a> {
    /// None where HDF5 has to read them.
    pub fn of(path: &'a Path, dataset: &Dataset) -> Option<Self> {
        let references = Unchunked::of(path, dataset, REFERENCE)?;
        let file = dataset.file().ok()?.fcpl().ok()?;
        let sizes = file.sizes();
        (sizes.sizeof_addr == 8 && sizes.sizeof_size == 8).then_some(Self { references, base: file.userblock() })
    }

    /// The references to a range of texts.
    pub fn references(&self, range: Range<usize>) -> Option<Vec<u8>> {
        let mut references = vec![];
        self.references.read(&mut self.references.open().ok()?, range, &mut references).ok()?;
        Some(references)
    }

    /// The texts that are referred to.
    pub fn read(&self, references: &[u8]) -> Option<Vec<Vec<u8>>> {
        let pieces: Option<Vec<Vec<Vec<u8>>>> =
            references.par_chunks(PIECE * REFERENCE).map(|references| self.piece(references)).collect();
        Some(pieces?.into_iter().flatten().collect())
    }

    fn piece(&self, references: &[u8]) -> Option<Vec<Vec<u8>>> {
        let most = references.len() + length_of_all(references);
        let file = BufReader::with_capacity(FETCHED, self.references.open().ok()?);
        // As much again for the heads and gaps of collections, and what belongs to the texts before and after.
        let mut heap = Heap { file, at: 0, left: 4 * most + FETCHED, collection: Collection::default() };
        references.chunks_exact(REFERENCE).map(|reference| self.text(reference, &mut heap)).collect()
    }

    fn text(&self, reference: &[u8], heap: &mut Heap) -> Option<Vec<u8>> {
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

/// How long these texts say they are.
pub fn length_of_all(references: &[u8]) -> usize {
    let lengths = references.chunks_exact(REFERENCE).filter_map(|reference| u32_at(reference, 0));
    lengths.fold(0, |sum: usize, length| sum.saturating_add(length as usize))
}

struct Heap {
    file: BufReader<File>,
    /// Where the file is read next.
    at: u64,
    /// Bytes that may still be read.
    left: usize,
    collection: Collection,
}

/// The collection that was read last.
#[derive(Default)]
struct Collection {
    address: u64,
    bytes: Vec<u8>,
    /// Where the object of each number is among the bytes.
    objects: Vec<Range<usize>>,
}

impl Heap {
    fn object(&mut self, collection: u64, number: u32) -> Option<&[u8]> {
        if self.collection.address != collection {
            self.read(collection)?;
        }
        let Collection { bytes, objects, .. } = &self.collection;
        bytes.get(objects.get(number as usize)?.clone())
    }

    fn read(&mut self, address: u64) -> Option<()> {
        // What is near is in the buffer already.
        match i64::try_from(i128::from(address) - i128::from(self.at)) {
            Ok(by) => self.file.seek_relative(by).ok()?,
            Err(_) => self.file.seek(SeekFrom::Start(address)).map(drop).ok()?,
        }
        self.at = address;
        // Of no address, if the reading fails.
        let Collection { mut bytes, mut objects, .. } = std::mem::take(&mut self.collection);
        let mut head = [0; HEAD];
        self.file.read_exact(&mut head).ok()?;
        let size = usize::try_from(u64_at(&head, 8)?).ok()?;
        if !head.starts_with(b"GCOL\x01") || size < HEAD || size > self.left {
            return None;
        }
        self.left -= size;
        bytes.resize(size - HEAD, 0);
        self.file.read_exact(&mut bytes).ok()?;
        self.at += size as u64;
        objects.clear();
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
        self.collection = Collection { address, bytes, objects };
        Some(())
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
        file.new_dataset_builder().with_data(&texts[..9]).chunk(4).create("chunks").unwrap();
    }

    fn read(path: &Path, name: &str, range: Range<usize>) -> Option<Vec<Vec<u8>>> {
        let file = hdf5::File::open(path).unwrap();
        let dataset = file.dataset(name).unwrap();
        let texts = Texts::of(path, &dataset)?;
        texts.read(&texts.references(range)?)
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
                    assert!(read(&path, "texts", range.clone()).unwrap() == expected[range.clone()], "{range:?}");
                }
                assert_eq!(read(&path, "chunks", 0..9), None);
            }
            // HDF5 may not yet have written what it was given.
            let file = hdf5::File::open_rw(&path).unwrap();
            assert!(Texts::of(&path, &file.dataset("texts").unwrap()).is_none());
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
            let texts = Texts::of(&path, &dataset).unwrap();
            let all = texts.references(0..5000).unwrap();
            let at = |i: usize| i * REFERENCE..(i + 1) * REFERENCE;
            let of = |length: u32, address: u64, number: u32| {
                [&length.to_le_bytes()[..], &address.to_le_bytes()[..], &number.to_le_bytes()[..]].concat()
            };
            let (long, short) = (&all[at(4321)], &all[at(5)]);
            let (length, address, number) =
                (u32_at(short, 0).unwrap(), u64_at(short, 4).unwrap(), u32_at(short, 12).unwrap());
            assert_eq!(texts.read(short), Some(vec!["é".repeat(5).into_bytes()]));
            assert_eq!(texts.read(&of(0, address, number)), Some(vec![vec![]]));
            assert_eq!(texts.read(&of(length, 0, number)), Some(vec![vec![]]));
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
                assert_eq!(texts.read(&of(length, address, number)), None, "{length} {address} {number}");
            }
            // Now here, now there: a long collection is not read over and over.
            let there = [long, short].concat();
            assert!(texts.read(&there).is_some() && texts.read(&[&all[at(9)], &there[..]].concat()).is_some());
            let wrong = of(1, u64_at(long, 4).unwrap(), u32_at(long, 12).unwrap());
            let back_and_forth = [&wrong[..], short].concat().repeat(1000);
            assert_eq!(texts.read(&back_and_forth), None);
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
                let texts = Texts::of(&path, &file.dataset("texts").unwrap()).unwrap().references(5..6);
                u64_at(&texts.unwrap(), 4).unwrap() as usize
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
