//! Numbers as text, in and out.
use clap::ArgMatches;
use kaichi_core::{Error, Result};

/// The numbers an option takes.
#[derive(Clone, Copy)]
pub struct Range {
    pub low: f64,
    pub high: f64,
    pub whole: bool,
}

impl Range {
    pub const SHARE: Range = Range { low: 0.0, high: 1.0, whole: false };
    pub const ANY: Range = Range { low: f64::NEG_INFINITY, high: f64::INFINITY, whole: false };
    pub const UMIS: Range = Range { low: 0.0, high: f64::INFINITY, whole: false };

    pub fn holds(&self, x: f64) -> bool {
        x.is_finite() && (self.low..=self.high).contains(&x) && (!self.whole || x.fract() == 0.0)
    }

    pub fn describe(&self) -> String {
        let kind = if self.whole { "a whole number" } else { "a number" };
        if self.high.is_finite() {
            format!("{kind} from {} to {}", self.low, self.high)
        } else if self.low.is_infinite() {
            kind.to_owned()
        } else if self.low == f64::MIN_POSITIVE {
            format!("{kind} above 0")
        } else {
            format!("{kind}, {} or more", self.low)
        }
    }
}

/// The value of an option that takes a number.
pub fn option(matches: &ArgMatches, name: &str, range: Range) -> Result<Option<f64>> {
    let Some(text) = matches.get_one::<String>(name) else { return Ok(None) };
    let value = text.parse().ok().filter(|&x| range.holds(x));
    value.map(Some).ok_or_else(|| Error::Argument(format!("--{name} is \"{text}\"; give {}.", range.describe())))
}

/// Significant digits, without the zeros at the end, and the power of ten of the first; of a finite number that is not 0.
fn digits(text: &str) -> (String, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let kept = digits.trim_end_matches('0');
    (if kept.is_empty() { "0" } else { kept }.to_owned(), exponent.parse().unwrap_or(0))
}

fn fixed(digits: &str, exponent: i32) -> String {
    let n = digits.len() as i32;
    if exponent < 0 {
        format!("0.{}{digits}", "0".repeat((-exponent - 1) as usize))
    } else if n <= exponent + 1 {
        format!("{digits}{}", "0".repeat((exponent + 1 - n) as usize))
    } else {
        let (whole, part) = digits.split_at((exponent + 1) as usize);
        format!("{whole}.{part}")
    }
}

fn scientific(digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}e{sign}{:02}", exponent.abs())
}

/// The fewest digits that read back as the same number, as C's %g and so write_calls() of the R package writes them; NaN, the
/// missing value, is empty.
pub fn number(x: f64) -> String {
    if x.is_nan() {
        return String::new();
    }
    if x.is_infinite() || x == 0.0 {
        return if x == 0.0 {
            "0"
        } else if x > 0.0 {
            "Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    let (digits, exponent) = digits(&format!("{:e}", x.abs()));
    let precision = digits.len().max(15) as i32;
    let text =
        if exponent < -4 || exponent >= precision { scientific(&digits, exponent) } else { fixed(&digits, exponent) };
    if x < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

/// As R's format(x, digits = 15): the shorter of fixed and scientific, fixed where they are equal. For finite numbers.
pub fn as_r(x: f64) -> String {
    if x == 0.0 {
        return "0".to_owned();
    }
    let (digits, exponent) = digits(&format!("{:.14e}", x.abs()));
    let (fixed, scientific) = (fixed(&digits, exponent), scientific(&digits, exponent));
    let text = if fixed.len() <= scientific.len() { fixed } else { scientific };
    if x < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

pub fn logical(x: bool) -> &'static str {
    if x {
        "TRUE"
    } else {
        "FALSE"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_as_themselves() {
        let mut state = 3u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let x = f64::from_bits(state);
            if x.is_finite() {
                assert_eq!(number(x).parse::<f64>().unwrap().to_bits(), x.to_bits(), "{}", number(x));
            }
        }
    }

    /// What sprintf("%.15g") (or more digits, where needed) and format(digits = 15) of R give.
    #[test]
    fn numbers_look_as_in_r() {
        for (x, text) in [
            (0.1 + 0.2, "0.30000000000000004"),
            (1.0, "1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (2.5e-7, "2.5e-07"),
            (123456.0, "123456"),
            (1e15, "1e+15"),
            (1e14, "100000000000000"),
            (5e-324, "5e-324"),
            (-0.5, "-0.5"),
            (1e100, "1e+100"),
        ] {
            assert_eq!(number(x), text);
        }
        for (x, text) in [
            (1e-6, "1e-06"),
            (0.3, "0.3"),
            (100000.0, "1e+05"),
            (123456.0, "123456"),
            (500.0, "500"),
            (1e-4, "1e-04"),
            (0.0012, "0.0012"),
            (1.0 / 3.0, "0.333333333333333"),
        ] {
            assert_eq!(as_r(x), text);
        }
    }
}
