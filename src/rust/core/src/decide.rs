//! From scores to calls: one rule for every model. A new threshold never needs a new fit.
use crate::counts::GuideCounts;
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    pub cut: Cut,
    /// Pairs with fewer UMIs are no calls, whatever their score.
    pub min_umi: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cut {
    /// Every positive score of at least this.
    MinConfidence(f64),
    /// Per guide, the floor(share * n) best of its n stored scores; ties go to more UMIs, then to the earlier cell.
    TopShare(f64),
    /// Scores are posteriors: the largest set of best scores whose mean of 1 - score is at most this.
    Fdr(f64),
    /// The same for each guide.
    FdrPerGuide(f64),
}

impl Cut {
    /// The cut of that name, as [`Cut::name`] gives it.
    pub fn new(name: &str, value: f64) -> Option<Self> {
        match name {
            "min_confidence" => Some(Cut::MinConfidence(value)),
            "quantile" => Some(Cut::TopShare(value)),
            "fdr" => Some(Cut::Fdr(value)),
            "fdr_per_guide" => Some(Cut::FdrPerGuide(value)),
            _ => None,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Cut::MinConfidence(_) => "min_confidence",
            Cut::TopShare(_) => "quantile",
            Cut::Fdr(_) => "fdr",
            Cut::FdrPerGuide(_) => "fdr_per_guide",
        }
    }

    pub fn value(&self) -> f64 {
        match *self {
            Cut::MinConfidence(value) | Cut::TopShare(value) | Cut::Fdr(value) | Cut::FdrPerGuide(value) => value,
        }
    }
}

impl Rule {
    pub fn check(&self) -> Result<()> {
        let value = self.cut.value();
        if !(0.0..=1.0).contains(&value) {
            return Err(Error::Argument(format!("`{}` is {value}; it must lie from 0 to 1.", self.cut.name())));
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
        Cut::Fdr(fdr) => {
            let mut called = vec![false; scores.len()];
            call_at_fdr(&mut called, scores, candidates(counts, scores, rule.min_umi, 0..scores.len()), fdr);
            called
        }
        Cut::FdrPerGuide(fdr) => {
            let mut called = vec![false; scores.len()];
            for guide in 0..counts.n_guides() {
                let places = counts.by_guide().guide(guide).position.iter().map(|&at| at as usize);
                call_at_fdr(&mut called, scores, candidates(counts, scores, rule.min_umi, places), fdr);
            }
            called
        }
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

/// The probability that a cell carries exactly the guides called, for scores that are posteriors: of every called pair its
/// score, of every other stored pair one less its score, multiplied. Guides without counts in the cell are taken as absent.
pub fn set_probability(counts: &GuideCounts, scores: &[f64], calls: &Calls) -> Vec<f64> {
    let mut called = vec![false; scores.len()];
    for &at in &calls.pairs {
        called[at] = true;
    }
    let log = |at: usize| if called[at] { scores[at].ln() } else { (-scores[at]).ln_1p() };
    (0..counts.n_cells()).map(|cell| counts.cell(cell).map(log).sum::<f64>().exp()).collect()
}

/// Pairs that an expected share of false pairs is counted over: only those that can be called.
fn candidates(counts: &GuideCounts, scores: &[f64], min_umi: f64, places: impl Iterator<Item = usize>) -> Vec<usize> {
    places.filter(|&at| scores[at] > 0.0 && counts.counts()[at] >= min_umi).collect()
}

/// Equal scores are taken or left together, so that the calls do not depend on the order of cells or guides.
fn call_at_fdr(called: &mut [bool], scores: &[f64], mut candidates: Vec<usize>, fdr: f64) {
    candidates.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut n, mut expected_false) = (0, 0.0);
    // The mean of 1 - score only grows, so the first group that is too much ends it.
    for ties in candidates.chunk_by(|&a, &b| scores[a] == scores[b]) {
        n += ties.len();
        expected_false += ties.len() as f64 * (1.0 - scores[ties[0]]);
        // 1 - 0.7 is more than 0.3 in binary.
        if expected_false > fdr * n as f64 * (1.0 + 1e-12) {
            return;
        }
        for &at in ties {
            called[at] = true;
        }
    }
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
    fn fdr_is_the_mean_of_one_less_the_score() {
        let scores = [1.0, 0.7, 0.4, 0.9, 0.7, 0.0];
        assert_eq!(calls(&scores, Cut::Fdr(0.0), 0.0).pairs, [0]);
        assert_eq!(calls(&scores, Cut::Fdr(0.05), 0.0).pairs, [0, 3]);
        // The two of 0.7 together: (0 + 0.1 + 0.3 + 0.3) / 4; one alone would pass at 0.14.
        assert_eq!(calls(&scores, Cut::Fdr(0.14), 0.0).pairs, [0, 3]);
        assert_eq!(calls(&scores, Cut::Fdr(0.175), 0.0).pairs, [0, 1, 3, 4]);
        assert_eq!(calls(&scores, Cut::Fdr(1.0), 0.0).pairs, [0, 1, 2, 3, 4]);
        // Guide 0: 1.0 and 0.4; guide 1: 0.7 and 0.7; guide 2: 0.9 and 0.
        assert_eq!(calls(&scores, Cut::FdrPerGuide(0.1), 0.0).pairs, [0, 3]);
        assert_eq!(calls(&scores, Cut::FdrPerGuide(0.3), 0.0).pairs, [0, 1, 2, 3, 4]);
        // The sure pairs of fewer UMIs must not pay for others.
        assert_eq!(calls(&scores, Cut::Fdr(0.2), 7.0).pairs, [0, 1, 4]);
        assert_eq!(calls(&scores, Cut::Fdr(0.15), 7.0).pairs, [0]);
    }

    /// Every set that can be called is tried, from a small generator of scores with ties.
    #[test]
    fn fdr_calls_the_largest_set_that_keeps_it() {
        let largest = |scores: &[f64], y: &[f64], places: &[usize], fdr: f64, min_umi: f64| -> Vec<usize> {
            let mut best = vec![];
            for cut in scores {
                let set: Vec<usize> =
                    places.iter().copied().filter(|&at| scores[at] >= *cut && *cut > 0.0 && y[at] >= min_umi).collect();
                let expected: f64 = set.iter().map(|&at| 1.0 - scores[at]).sum();
                if set.len() > best.len() && expected / set.len() as f64 <= fdr + 1e-12 {
                    best = set;
                }
            }
            best
        };
        let mut state = 7u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        let (mut some, mut not_all) = (0, 0);
        for _ in 0..200 {
            let (mut p, mut i, mut x) = (vec![0], vec![], vec![]);
            for _ in 0..12 {
                for guide in 0..4 {
                    if draw(3) > 0 {
                        i.push(guide);
                        x.push(1.0 + draw(6) as f64);
                    }
                }
                p.push(i.len() as i32);
            }
            let scores: Vec<f64> = x.iter().map(|_| draw(11) as f64 / 10.0).collect();
            let counts = GuideCounts::new(4, &p, &i, &x, None).unwrap();
            for fdr in [0.0, 0.07, 0.25, 0.6, 1.0] {
                for min_umi in [0.0, 4.0] {
                    let all: Vec<usize> = (0..x.len()).collect();
                    let got = decide(&counts, &scores, &Rule { cut: Cut::Fdr(fdr), min_umi }).unwrap();
                    assert_eq!(got.pairs, largest(&scores, &x, &all, fdr, min_umi));
                    some += usize::from(!got.pairs.is_empty());
                    not_all += usize::from(got.pairs.len() < x.len());
                    let got = decide(&counts, &scores, &Rule { cut: Cut::FdrPerGuide(fdr), min_umi }).unwrap();
                    let mut expected: Vec<usize> = (0..4)
                        .flat_map(|guide| {
                            let of: Vec<usize> = all.iter().copied().filter(|&at| i[at] == guide).collect();
                            largest(&scores, &x, &of, fdr, min_umi)
                        })
                        .collect();
                    expected.sort_unstable();
                    assert_eq!(got.pairs, expected);
                }
            }
        }
        assert!(some > 500 && not_all > 500);
    }

    #[test]
    fn the_set_is_as_probable_as_its_pairs() {
        let counts = GuideCounts::new(3, &P, &I, &X, None).unwrap();
        let scores = [0.9, 0.8, 0.3, 0.6, 1.0, 0.25];
        let of = |cut: f64, min_umi: f64| {
            let calls = decide(&counts, &scores, &Rule { cut: Cut::MinConfidence(cut), min_umi }).unwrap();
            set_probability(&counts, &scores, &calls)
        };
        let close = |got: Vec<f64>, expected: [f64; 4]| {
            assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?} {expected:?}");
        };
        close(of(0.5, 0.0), [0.9 * 0.8, 0.7 * 0.6, 1.0, 1.0 * 0.75]);
        close(of(0.85, 0.0), [0.9 * 0.2, 0.7 * 0.4, 1.0, 0.75]);
        // A sure pair that is not called makes the set impossible.
        close(of(0.5, 8.0), [0.9 * 0.8, 0.7 * 0.4, 1.0, 0.0]);
    }

    #[test]
    fn cuts_are_found_by_their_names() {
        for cut in [Cut::MinConfidence(0.1), Cut::TopShare(0.2), Cut::Fdr(0.3), Cut::FdrPerGuide(0.4)] {
            assert_eq!(Cut::new(cut.name(), cut.value()), Some(cut));
        }
        assert_eq!(Cut::new("most", 0.5), None);
    }

    #[test]
    fn thresholds_out_of_range_are_errors() {
        for cut in [Cut::MinConfidence(1.5), Cut::MinConfidence(f64::NAN), Cut::TopShare(-0.1), Cut::Fdr(1.1)] {
            assert!(Rule { cut, min_umi: 0.0 }.check().is_err());
        }
        assert!(Rule { cut: Cut::TopShare(0.5), min_umi: f64::NAN }.check().is_err());
    }
}
