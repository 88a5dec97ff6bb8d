//! Text as people and their tools write it: gzipped or not; in UTF-8, UTF-16 or Latin-1; separated by commas, tabs or semicolons.
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::h5ad::values::Source;
use crate::Result;

/// The bytes of a file, inflated where it is gzip.
pub(super) fn open(source: Source) -> Result<Box<dyn Read + Send>> {
    let unreadable = |error: std::io::Error| source.file(format!("cannot be read: {error}."));
    let mut file = File::open(source.0).map_err(unreadable)?;
    let mut head = vec![];
    (&mut file).take(2).read_to_end(&mut head).map_err(unreadable)?;
    let gzip = head == [0x1f, 0x8b];
    let whole = Cursor::new(head).chain(file);
    Ok(if gzip { Box::new(MultiGzDecoder::new(BufReader::new(whole))) } else { Box::new(whole) })
}

pub(super) fn cut_short(source: Source, error: std::io::Error) -> crate::Error {
    source.file(format!("cannot be read to its end: {error}.\n  It may be cut short. Get it again."))
}

/// The text of a file that is read as a stream: without a byte order mark, UTF-16 already decoded. What is not UTF-8 is left as
/// it is, for [`field`].
pub(super) fn stream(source: Source) -> Result<Box<dyn Read + Send>> {
    let mut file = open(source)?;
    let mut head = vec![];
    file.by_ref().take(4).read_to_end(&mut head).map_err(|error| cut_short(source, error))?;
    if utf16(&head).is_some() {
        file.read_to_end(&mut head).map_err(|error| cut_short(source, error))?;
        return Ok(Box::new(Cursor::new(decode(head).into_bytes())));
    }
    let skipped = if head.starts_with(MARK) { MARK.len() } else { 0 };
    Ok(Box::new(Cursor::new(head.split_off(skipped)).chain(file)))
}

/// The text of a small file.
pub(super) fn read(source: Source) -> Result<String> {
    let mut bytes = vec![];
    open(source)?.read_to_end(&mut bytes).map_err(|error| cut_short(source, error))?;
    Ok(decode(bytes))
}

/// The mark of UTF-8 that spreadsheets put first.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// How UTF-16 puts the bytes of a number together, where the text is UTF-16: by its mark, or by the zero beside a letter.
fn utf16(head: &[u8]) -> Option<fn([u8; 2]) -> u16> {
    match head {
        [0xff, 0xfe, ..] => Some(u16::from_le_bytes),
        [0xfe, 0xff, ..] => Some(u16::from_be_bytes),
        [letter, 0, other, 0, ..] if *letter != 0 && *other != 0 => Some(u16::from_le_bytes),
        [0, letter, 0, other, ..] if *letter != 0 && *other != 0 => Some(u16::from_be_bytes),
        _ => None,
    }
}

fn decode(bytes: Vec<u8>) -> String {
    if let Some(joined) = utf16(&bytes) {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| joined([pair[0], pair[1]])).collect();
        return String::from_utf16_lossy(&units).trim_start_matches('\u{feff}').to_owned();
    }
    let bytes = match bytes.strip_prefix(MARK) {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    String::from_utf8(bytes).unwrap_or_else(|error| latin_1(error.as_bytes()))
}

/// Every byte is the character of its number.
fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// A field without the blanks around it.
pub(super) fn field(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => latin_1(bytes).trim().to_owned(),
    }
}

/// What separates the fields of a line: the tab, comma or semicolon that occurs most often outside quotes; none if none does.
pub(super) fn delimiter(line: &str) -> Option<u8> {
    let mut n = [(b'\t', 0), (b',', 0), (b';', 0)];
    let mut quoted = false;
    for byte in line.bytes() {
        quoted ^= byte == b'"';
        n.iter_mut().filter(|(known, _)| *known == byte && !quoted).for_each(|(_, n)| *n += 1);
    }
    // Of equally many the first.
    let most = n.iter().map(|(_, n)| *n).max().filter(|&most| most > 0)?;
    n.iter().find(|(_, n)| *n == most).map(|(byte, _)| *byte)
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Whether the values are the numbers of the rows, from 0 or from 1, as pandas and R write them.
pub(super) fn are_row_numbers<'a>(mut values: impl Iterator<Item = &'a str>) -> bool {
    let Some(first) = values.next().and_then(|value| value.parse::<usize>().ok()).filter(|&first| first < 2) else {
        return false;
    };
    values.zip(first + 1..).all(|(value, number)| value.parse() == Ok(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_gives_the_same_text() {
        let text = "guide_id;target\ngé;A\n";
        let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let little = utf16(u16::to_le_bytes);
        let big = utf16(u16::to_be_bytes);
        let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
        for bytes in [
            text.as_bytes().to_vec(),
            [MARK, text.as_bytes()].concat(),
            [&[0xff, 0xfe][..], &little].concat(),
            [&[0xfe, 0xff][..], &big].concat(),
            little,
            big,
            latin,
        ] {
            assert_eq!(decode(bytes.clone()), text, "{bytes:?}");
        }
    }

    #[test]
    fn the_delimiter_is_what_separates() {
        let cases = [("a,b,c", b','), ("a\tb,c\td", b'\t'), ("a;b;c", b';'), ("\"a,b,c\";d", b';')];
        for (line, expected) in cases {
            assert_eq!(delimiter(line), Some(expected), "{line}");
        }
        assert_eq!(delimiter("barcode"), None);
    }

    #[test]
    fn numbers_of_rows_are_known() {
        assert!(are_row_numbers(["0", "1", "2"].into_iter()) && are_row_numbers(["1", "2"].into_iter()));
        for values in [&["2", "3"][..], &["0", "2"], &["a", "b"], &[]] {
            assert!(!are_row_numbers(values.iter().copied()), "{values:?}");
        }
    }
}
