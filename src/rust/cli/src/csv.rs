//! CSV after RFC 4180, in UTF-8; written with \n, read with \n or \r\n.
use std::borrow::Cow;
use std::io::{self, Write};

/// Quotes where the text needs it.
pub fn field(text: &str) -> Cow<'_, str> {
    if text.contains(['"', ',', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

pub fn record<S: AsRef<str>>(out: &mut dyn Write, fields: impl IntoIterator<Item = S>) -> io::Result<()> {
    for (at, text) in fields.into_iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        out.write_all(field(text.as_ref()).as_bytes())?;
    }
    out.write_all(b"\n")
}

/// The shortest text that reads back as the same number; NaN, the missing value, is empty.
pub fn number(x: f64) -> String {
    if x.is_nan() {
        String::new()
    } else if x.is_infinite() {
        if x > 0.0 { "Inf" } else { "-Inf" }.to_owned()
    } else if x != 0.0 && !(1e-5..1e15).contains(&x.abs()) {
        format!("{x:e}")
    } else {
        x.to_string()
    }
}

pub fn logical(x: bool) -> &'static str {
    if x {
        "TRUE"
    } else {
        "FALSE"
    }
}

/// Reads record by record; a quoted field may hold line ends.
pub struct Reader<'a> {
    text: &'a str,
    /// Where the next record starts.
    at: usize,
    /// Line of the record read last, from 1.
    pub line: usize,
    next_line: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str, first_line: usize) -> Self {
        Self { text, at: 0, line: first_line, next_line: first_line }
    }

    /// The fields of the next record into `fields`; false at the end. The error says what breaks the format.
    pub fn read(&mut self, fields: &mut Vec<Cow<'a, str>>) -> Result<bool, &'static str> {
        fields.clear();
        self.line = self.next_line;
        if self.at == self.text.len() {
            return Ok(false);
        }
        loop {
            fields.push(self.field()?);
            let rest = &self.text[self.at..];
            if rest.starts_with(',') {
                self.at += 1;
                continue;
            }
            self.at += match rest {
                "" => return Err("its last line is cut short"),
                _ if rest.starts_with('\n') => 1,
                _ if rest.starts_with("\r\n") => 2,
                _ => return Err("text follows a closing quote"),
            };
            self.next_line += 1;
            return Ok(true);
        }
    }

    fn field(&mut self) -> Result<Cow<'a, str>, &'static str> {
        let rest = &self.text[self.at..];
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find([',', '\n']).unwrap_or(rest.len());
            let end = if rest[..end].ends_with('\r') && rest[end..].starts_with('\n') { end - 1 } else { end };
            if rest[..end].contains('"') {
                return Err("a quote stands inside a field that is not quoted");
            }
            self.at += end;
            return Ok(Cow::Borrowed(&rest[..end]));
        };
        let mut end = 0;
        loop {
            end += quoted[end..].find('"').ok_or("a quoted field has no end")?;
            if !quoted[end + 1..].starts_with('"') {
                break;
            }
            end += 2;
        }
        self.at += end + 2;
        let inner = &quoted[..end];
        self.next_line += inner.matches('\n').count();
        Ok(if inner.contains('"') { Cow::Owned(inner.replace("\"\"", "\"")) } else { Cow::Borrowed(inner) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Vec<String>>, &'static str> {
        let mut reader = Reader::new(text, 1);
        let (mut fields, mut records) = (vec![], vec![]);
        while reader.read(&mut fields)? {
            records.push(fields.iter().map(|field| field.to_string()).collect());
        }
        Ok(records)
    }

    #[test]
    fn only_what_needs_quotes_gets_them() {
        assert_eq!(field("guide-é 1;#'"), "guide-é 1;#'");
        assert_eq!(field("a,b"), "\"a,b\"");
        assert_eq!(field("5\" end"), "\"5\"\" end\"");
        assert_eq!(field("a\nb"), "\"a\nb\"");
    }

    #[test]
    fn records_read_back_as_written() {
        let records = [["a,b", "\"", "\"\""], ["x\ny", "\r\n", ""], ["", "", ""], [" é ", ",\",\n\"", "\r"]];
        let mut text = vec![];
        for fields in &records {
            record(&mut text, fields).unwrap();
        }
        assert_eq!(read(std::str::from_utf8(&text).unwrap()).unwrap(), records);
    }

    #[test]
    fn both_line_ends_are_read() {
        assert_eq!(read("a,b\r\n\"c\",\r\n").unwrap(), [["a", "b"], ["c", ""]]);
        assert_eq!(read("").unwrap(), Vec::<Vec<String>>::new());
    }

    #[test]
    fn broken_text_is_an_error() {
        for bad in ["a", "a,b\nc", "\"a\n", "\"a\"b\n", "a\"b\n", "\"a\"\"\n"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lines_are_counted_through_quoted_line_ends() {
        let mut reader = Reader::new("\"a\nb\"\nc\nd\n", 4);
        let mut fields = vec![];
        let mut lines = vec![];
        while reader.read(&mut fields).unwrap() {
            lines.push(reader.line);
        }
        assert_eq!(lines, [4, 6, 7]);
    }

    #[test]
    fn numbers_read_back_bit_for_bit() {
        let mut x: f64 = 1e-320;
        while x < 1e308 {
            for y in [x, -x, 1.0 - x.min(0.5), f64::from_bits(x.to_bits() + 1)] {
                assert_eq!(number(y).parse::<f64>().unwrap().to_bits(), y.to_bits());
            }
            x *= 7.3;
        }
        assert_eq!(
            [number(0.0), number(1.0), number(0.8), number(1e-6), number(2e15)],
            ["0", "1", "0.8", "1e-6", "2e15"]
        );
        assert_eq!([number(f64::NAN), number(f64::INFINITY), number(f64::NEG_INFINITY)], ["", "Inf", "-Inf"]);
    }
}
