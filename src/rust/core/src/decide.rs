//! From scores to calls: one rule for every model. A new threshold never needs a new fit.
use crate::counts::GuideCounts;
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    pub cut: Cut,
    /// Calls with fewer UMIs are dropped, whatever their score.
    pub min_umi: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cut {
    /// Every positive score of at least this.
    MinConfidence(f64),
    /// Per guide, the floor(share * n) best of its n stored scores; ties go to more UMIs, then to the earlier cell.
    TopShare(f64),
}

impl Rule {
    pub fn check(&self) -> Result<()> {
        let (name, value) = match self.cut {
            Cut::MinConfidence(value) => ("min_confidence", value),
            Cut::TopShare(value) => ("quantile", value),
        };
        if !(0.0..=1.0).contains(&value) {
            return Err(Error::Argument(format!("`{name}` is {value}; it must lie from 0 to 1.")));
        }
        if self.min_umi.is_nan() || self.min_umi < 0.0 {
            return Err(Error::Argument(format!(
                "`min_umi` is {}; it must be a number of UMIs, 0 or more.",
                self.min_umi
            )));
        }
        Ok(())
    }
}

/// The calls of all cells, as places among the stored counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Calls {
    /// Called pairs, in cell-major order.
    pub pairs: Vec<usize>,
    /// Start of each cell's calls in `pairs`; length cells + 1.
    pub indptr: Vec<usize>,
    /// Of each cell the call that names it: the highest score, then the most UMIs, then the earliest guide.
    pub best: Vec<Option<usize>>,
}

pub fn decide(counts: &GuideCounts, scores: &[f64], rule: &Rule) -> Result<Calls> {
    rule.check()?;
    if scores.len() != counts.n_counts() {
        return Err(Error::Internal(format!("{} scores for {} counts", scores.len(), counts.n_counts())));
    }
    let y = counts.counts();
    let mut called: Vec<bool> = match rule.cut {
        Cut::MinConfidence(cut) => scores.iter().map(|&s| s > 0.0 && s >= cut).collect(),
        Cut::TopShare(share) => top_share(counts, scores, share),
    };
    for (called, &y) in called.iter_mut().zip(y) {
        *called &= y >= rule.min_umi;
    }
    let mut calls = Calls { pairs: vec![], indptr: vec![0], best: vec![] };
    for cell in 0..counts.n_cells() {
        let start = calls.pairs.len();
        calls.pairs.extend(counts.cell(cell).filter(|&at| called[at]));
        calls.indptr.push(calls.pairs.len());
        // min_by keeps the first of equals, and guides increase within a cell.
        let better = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(y[*b].total_cmp(&y[*a]));
        calls.best.push(calls.pairs[start..].iter().copied().min_by(better));
    }
    Ok(calls)
}

fn top_share(counts: &GuideCounts, scores: &[f64], share: f64) -> Vec<bool> {
    let mut called = vec![false; scores.len()];
    for guide in 0..counts.n_guides() {
        let mut places: Vec<u32> = counts.by_guide().guide(guide).position.to_vec();
        // 0.29 * 100 is 28.999999999999996 in binary.
        let n = (share * places.len() as f64 + 1e-9).floor() as usize;
        places.sort_by(|&a, &b| {
            let (a, b) = (a as usize, b as usize);
            scores[b].total_cmp(&scores[a]).then(counts.counts()[b].total_cmp(&counts.counts()[a])).then(a.cmp(&b))
        });
        for &at in &places[..n] {
            called[at as usize] = true;
        }
    }
    called
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: [i32; 5] = [0, 2, 4, 4, 6];
    const I: [i32; 6] = [0, 1, 0, 2, 1, 2];
    const X: [f64; 6] = [9.0, 9.0, 1.0, 4.0, 7.0, 8.0];

    fn calls(scores: &[f64], cut: Cut, min_umi: f64) -> Calls {
        let counts = GuideCounts::new(3, &P, &I, &X, None).unwrap();
        decide(&counts, scores, &Rule { cut, min_umi }).unwrap()
    }

    #[test]
    fn ties_go_to_umis_then_to_the_earlier_guide() {
        let calls = calls(&[0.9, 0.9, 0.2, 0.9, 0.9, 0.9], Cut::MinConfidence(0.5), 0.0);
        assert_eq!(calls.best, [Some(0), Some(3), None, Some(5)]);
        assert_eq!(calls.pairs, [0, 1, 3, 4, 5]);
        assert_eq!(calls.indptr, [0, 2, 3, 3, 5]);
    }

    #[test]
    fn min_umi_and_zero_scores() {
        let got = calls(&[1.0, 0.0, 1.0, 1.0, 0.0, 1.0], Cut::MinConfidence(0.0), 5.0);
        assert_eq!(got.pairs, [0, 5]);
    }

    #[test]
    fn top_share_takes_the_floor() {
        let got = calls(&[0.5, 0.6, 0.4, 0.9, 0.7, 0.8], Cut::TopShare(0.5), 0.0);
        assert_eq!(got.pairs, [0, 3, 4]);
        assert!(calls(&[0.5; 6], Cut::TopShare(0.49), 0.0).pairs.is_empty());
    }

    #[test]
    fn thresholds_out_of_range_are_errors() {
        for cut in [Cut::MinConfidence(1.5), Cut::MinConfidence(f64::NAN), Cut::TopShare(-0.1)] {
            assert!(Rule { cut, min_umi: 0.0 }.check().is_err());
        }
        assert!(Rule { cut: Cut::TopShare(0.5), min_umi: f64::NAN }.check().is_err());
    }
}
