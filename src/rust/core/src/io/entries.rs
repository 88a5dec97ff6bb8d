//! Counts that come in any order, to the rows of the cells.
use super::h5ad::values::Source;
use crate::Result;

/// A count of a guide.
pub(super) struct Entry {
    pub cell: u32,
    pub guide: i32,
    pub count: i32,
}

/// The rows of the cells, sorted.
pub(super) fn rows(
    source: Source,
    entries: &[Vec<Entry>],
    cells: &[String],
    guide_names: &[String],
) -> Result<(Vec<i32>, Vec<i32>, Vec<f64>)> {
    let n: usize = entries.iter().map(Vec::len).sum();
    if n > i32::MAX as usize {
        return Err(
            source.counts(format!("{n} counts are more than the 2147483647 that kaichi can hold. Split the file."))
        );
    }
    let mut indptr = vec![0i32; cells.len() + 1];
    let all = || entries.iter().flatten();
    all().for_each(|entry| indptr[entry.cell as usize + 1] += 1);
    for cell in 0..cells.len() {
        indptr[cell + 1] += indptr[cell];
    }
    let mut next = indptr.clone();
    let mut placed = vec![(0, 0); n];
    for entry in all() {
        let at = &mut next[entry.cell as usize];
        placed[*at as usize] = (entry.guide, entry.count);
        *at += 1;
    }
    for (cell, bounds) in indptr.windows(2).enumerate() {
        let row = &mut placed[bounds[0] as usize..bounds[1] as usize];
        row.sort_unstable_by_key(|&(guide, _)| guide);
        if let Some(twice) = row.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(source.format_in(format!(
                "the guide \"{}\" stands more than once in cell \"{}\".\n  Each pair has one entry: the file is damaged.",
                guide_names[twice[0].0 as usize], cells[cell]
            )));
        }
    }
    let (guides, counts) = placed.into_iter().map(|(guide, count)| (guide, f64::from(count))).unzip();
    Ok((indptr, guides, counts))
}

/// Digits only, as nearly all words are.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() || word.len() > 18 {
        return None;
    }
    word.iter().try_fold(0u64, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

/// A UMI count, or why it is none.
pub(super) fn count(word: &[u8]) -> std::result::Result<i32, &'static str> {
    let value = match number(word) {
        Some(whole) => whole as f64,
        None => std::str::from_utf8(word).ok().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN),
    };
    match value {
        value if value.is_nan() => Err("which is not a number"),
        value if value < 0.0 => Err("which is negative"),
        value if value > f64::from(i32::MAX) => Err("which is more than 2147483647"),
        value if value.fract() != 0.0 => Err("which is not a whole number"),
        value => Ok(value as i32),
    }
}
