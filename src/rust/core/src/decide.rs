//! From scores to calls: one rule for every model. A new threshold never needs a new fit. Works on blocks of cells, or on
//! guides, on the threads of the current pool; calls do not depend on how many there are.
use rayon::prelude::*;

use crate::counts::{pieces, Entry, GuideCounts, BLOCK};
use crate::models::{plogis, Scores};
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
    /// Scores are posteriors: every positive one whose log odds are at least this.
    MinLogOdds(f64),
    /// Per guide, the floor(share * n) best of its n stored scores; ties go to more UMIs, then to the earlier cell.
    TopShare(f64),
    /// Scores are posteriors: the largest set of best scores whose mean of 1 - score is at most this. Ranked and summed by log
    /// odds, where these are kept: scores that round to 1 are not equal.
    Fdr(f64),
    /// The same for each guide.
    FdrPerGuide(f64),
}

impl Cut {
    /// The cut of that name, as [`Cut::name`] gives it.
    pub fn new(name: &str, value: f64) -> Option<Self> {
        match name {
            "min_confidence" => Some(Cut::MinConfidence(value)),
            "min_log_odds" => Some(Cut::MinLogOdds(value)),
            "quantile" => Some(Cut::TopShare(value)),
            "fdr" => Some(Cut::Fdr(value)),
            "fdr_per_guide" => Some(Cut::FdrPerGuide(value)),
            _ => None,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Cut::MinConfidence(_) => "min_confidence",
            Cut::MinLogOdds(_) => "min_log_odds",
            Cut::TopShare(_) => "quantile",
            Cut::Fdr(_) => "fdr",
            Cut::FdrPerGuide(_) => "fdr_per_guide",
        }
    }

    pub fn value(&self) -> f64 {
        match *self {
            Cut::MinConfidence(value)
            | Cut::MinLogOdds(value)
            | Cut::TopShare(value)
            | Cut::Fdr(value)
            | Cut::FdrPerGuide(value) => value,
        }
    }

    /// Whether it is decided by the log odds of the posteriors, which tell apart what rounds to 1.
    pub fn uses_log_odds(&self) -> bool {
        matches!(self, Cut::MinLogOdds(_) | Cut::Fdr(_) | Cut::FdrPerGuide(_))
    }
}

impl Rule {
    pub fn check(&self) -> Result<()> {
        let value = self.cut.value();
        if let Cut::MinLogOdds(_) = self.cut {
            if !value.is_finite() {
                return Err(Error::Argument(format!("`min_log_odds` is {value}; it must be a finite number.")));
            }
        } else if !(0.0..=1.0).contains(&value) {
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

/// What is decided on: the score of each stored count and, for posteriors, its log odds; empty where those are not kept. Then
/// they are taken from the scores, of which those that round to 1 are all the same.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    pub score: &'a [f64],
    pub log_odds: &'a [f64],
}

impl<'a> From<&'a [f64]> for Evidence<'a> {
    fn from(score: &'a [f64]) -> Self {
        Evidence { score, log_odds: &[] }
    }
}

impl<'a> From<&'a Vec<f64>> for Evidence<'a> {
    fn from(score: &'a Vec<f64>) -> Self {
        Evidence { score, log_odds: &[] }
    }
}

impl<'a> From<&'a Scores> for Evidence<'a> {
    fn from(scores: &'a Scores) -> Self {
        Evidence { score: &scores.score, log_odds: &scores.log_odds }
    }
}

impl Evidence<'_> {
    /// Log odds; infinite where they are taken from a score of 0 or 1.
    fn log_odds(&self, at: usize) -> f64 {
        match self.log_odds.get(at) {
            Some(&log_odds) => log_odds,
            None => self.score[at].ln() - (-self.score[at]).ln_1p(),
        }
    }

    /// What pairs are ranked by for a false discovery rate.
    fn rank(&self, at: usize) -> f64 {
        self.log_odds.get(at).copied().unwrap_or(self.score[at])
    }

    /// The probability that the guide is not carried.
    fn false_share(&self, at: usize) -> f64 {
        false_share(self.rank(at), !self.log_odds.is_empty())
    }
}

/// One less the posterior, by what pairs are ranked by: log odds, or the posterior itself.
pub fn false_share(rank: f64, is_log_odds: bool) -> f64 {
    if is_log_odds {
        plogis(-rank)
    } else {
        1.0 - rank
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

pub fn decide<'a>(counts: &GuideCounts, evidence: impl Into<Evidence<'a>>, rule: &Rule) -> Result<Calls> {
    rule.check()?;
    let evidence = evidence.into();
    let scores = evidence.score;
    if scores.len() != counts.n_counts() {
        return Err(Error::Internal(format!("{} scores for {} counts", scores.len(), counts.n_counts())));
    }
    if !evidence.log_odds.is_empty() && evidence.log_odds.len() != scores.len() {
        return Err(Error::Internal(format!("{} log odds for {} scores", evidence.log_odds.len(), scores.len())));
    }
    let y = counts.counts();
    let called: Option<Vec<bool>> = match rule.cut {
        Cut::MinConfidence(_) | Cut::MinLogOdds(_) => None,
        Cut::TopShare(share) => Some(top_share(counts, scores, share)),
        Cut::Fdr(fdr) => {
            let all = (0..scores.len() as u32).into_par_iter().filter(|&at| can_be_called(counts, scores, rule, at));
            Some(flags(scores.len(), [called_at_fdr(evidence, all.collect(), fdr)]))
        }
        Cut::FdrPerGuide(fdr) => {
            let by_guide = counts.by_guide();
            let called: Vec<Vec<u32>> = (0..counts.n_guides())
                .into_par_iter()
                .map(|guide| {
                    let places = by_guide.guide(guide).map(|entry| entry.position);
                    called_at_fdr(evidence, places.filter(|&at| can_be_called(counts, scores, rule, at)).collect(), fdr)
                })
                .collect();
            Some(flags(scores.len(), called))
        }
    };
    let is_called = |at: usize| {
        let passes = match (&called, rule.cut) {
            (Some(called), _) => called[at],
            (None, Cut::MinLogOdds(least)) => scores[at] > 0.0 && evidence.log_odds(at) >= least,
            (None, cut) => scores[at] > 0.0 && scores[at] >= cut.value(),
        };
        passes && y[at] >= rule.min_umi
    };
    let called_in = |cell| counts.cell(cell).filter(|&at| is_called(at));
    let n_cells = counts.n_cells();
    let (mut n_called, mut best) = (Vec::new(), Vec::new());
    let each = (0..n_cells).into_par_iter().with_min_len(BLOCK).map(|cell| {
        // min_by keeps the first of equals, and guides increase within a cell.
        let better = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(y[*b].total_cmp(&y[*a]));
        let mut n = 0;
        let best = called_in(cell).inspect(|_| n += 1).min_by(better);
        (n, best)
    });
    each.unzip_into_vecs(&mut n_called, &mut best);
    let mut indptr = Vec::with_capacity(n_cells + 1);
    let mut n_pairs: usize = 0;
    indptr.push(0);
    indptr.extend(n_called.into_iter().map(|n: u32| {
        n_pairs += n as usize;
        n_pairs
    }));

    let mut pairs = vec![0; n_pairs];
    let blocks = counts.blocks();
    let of_blocks = pieces(&mut pairs, blocks.iter().map(|cells| indptr[cells.end] - indptr[cells.start]));
    of_blocks
        .into_par_iter()
        .zip(blocks)
        .for_each(|(piece, cells)| piece.iter_mut().zip(cells.flat_map(called_in)).for_each(|(to, at)| *to = at));
    Ok(Calls { pairs, indptr, best })
}

/// The probability that a cell carries exactly the guides called, for scores that are posteriors: of every called pair its
/// score, of every other stored pair one less its score, multiplied. Guides without counts in the cell are taken as absent.
pub fn set_probability(counts: &GuideCounts, scores: &[f64], calls: &Calls) -> Vec<f64> {
    let of_cell = |cell: usize| {
        let mut called = calls.pairs[calls.indptr[cell]..calls.indptr[cell + 1]].iter().copied().peekable();
        // A product that is too small for f64 is 0, as is the exponential of its logarithm.
        let mut probability = 1.0;
        for at in counts.cell(cell) {
            let is_called = called.next_if_eq(&at).is_some();
            probability *= if is_called { scores[at] } else { 1.0 - scores[at] };
        }
        probability
    };
    (0..counts.n_cells()).into_par_iter().with_min_len(BLOCK).map(of_cell).collect()
}

/// Whether an expected share of false pairs is counted over this pair, too.
fn can_be_called(counts: &GuideCounts, scores: &[f64], rule: &Rule, at: u32) -> bool {
    scores[at as usize] > 0.0 && counts.counts()[at as usize] >= rule.min_umi
}

/// Which of the candidates are called. Equal ones are taken or left together, so that the calls do not depend on the order
/// of cells or guides.
fn called_at_fdr(evidence: Evidence, mut candidates: Vec<u32>, fdr: f64) -> Vec<u32> {
    let rank = |at: u32| evidence.rank(at as usize);
    candidates.par_sort_unstable_by(|&a, &b| rank(b).total_cmp(&rank(a)));
    let groups = candidates.chunk_by(|&a, &b| rank(a) == rank(b));
    let n = at_most_false(fdr, groups.map(|ties| (ties.len(), evidence.false_share(ties[0] as usize))));
    candidates.truncate(n);
    candidates
}

/// How many pairs are called: groups of equal ones, the best first, each with its number and the probability that one of it
/// is false.
pub fn at_most_false(fdr: f64, groups: impl Iterator<Item = (usize, f64)>) -> usize {
    let (mut n, mut expected_false) = (0, 0.0);
    // The mean only grows, so the first group that is too much ends it.
    for (tied, false_share) in groups {
        expected_false += tied as f64 * false_share;
        // 1 - 0.7 is more than 0.3 in binary.
        if expected_false > fdr * (n + tied) as f64 * (1.0 + 1e-12) {
            break;
        }
        n += tied;
    }
    n
}

fn top_share(counts: &GuideCounts, scores: &[f64], share: f64) -> Vec<bool> {
    let by_guide = counts.by_guide();
    let best: Vec<Vec<u32>> = (0..counts.n_guides())
        .into_par_iter()
        .map(|guide| {
            // Scores lie far apart in memory: each is fetched once.
            let at = |entry: &Entry| (scores[entry.position as usize], entry.count, entry.position);
            let mut places: Vec<(f64, u32, u32)> = by_guide.guide(guide).map(at).collect();
            // 0.29 * 100 is 28.999999999999996 in binary.
            let n = (share * places.len() as f64 + 1e-9).floor() as usize;
            if n > 0 && n < places.len() {
                places
                    .select_nth_unstable_by(n - 1, |a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)));
            }
            places.truncate(n);
            places.into_iter().map(|(_, _, at)| at).collect()
        })
        .collect();
    flags(scores.len(), best)
}

/// True at the places given.
fn flags(n: usize, places: impl IntoIterator<Item = Vec<u32>>) -> Vec<bool> {
    let mut flags = vec![false; n];
    for at in places.into_iter().flatten() {
        flags[at as usize] = true;
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: [i32; 5] = [0, 2, 4, 4, 6];
    const I: [i32; 6] = [0, 1, 0, 2, 1, 2];
    const X: [f64; 6] = [9.0, 9.0, 1.0, 4.0, 7.0, 8.0];

    #[test]
    fn log_odds_tell_apart_what_rounds_to_one() {
        let counts = GuideCounts::new(3, &P, &I, &X, None).unwrap();
        // Posteriors of 1 but for the last, which is 0 whatever its log odds.
        let (score, log_odds) = ([1.0, 1.0, 1.0, 1.0, 1.0, 0.0], [40.0, 250.0, 38.0, 50.0, 40.0, 60.0]);
        assert!(log_odds.iter().all(|&l| plogis(l) == 1.0));
        let evidence = Evidence { score: &score, log_odds: &log_odds };
        let of = |cut| decide(&counts, evidence, &Rule { cut, min_umi: 0.0 }).unwrap().pairs;
        assert_eq!(of(Cut::MinLogOdds(45.0)), [1, 3]);
        assert_eq!(of(Cut::MinLogOdds(40.0)), [0, 1, 3, 4]);
        assert_eq!(of(Cut::MinLogOdds(-1e9)), [0, 1, 2, 3, 4]);
        assert_eq!(of(Cut::MinConfidence(1.0)), [0, 1, 2, 3, 4]);
        let q = |l: f64| (-l).exp();
        assert_eq!(of(Cut::Fdr(0.0)), [0usize; 0]);
        assert_eq!(of(Cut::Fdr(q(249.0))), [1]);
        assert_eq!(of(Cut::Fdr(q(51.0))), [1]);
        assert_eq!(of(Cut::Fdr(q(50.0))), [1, 3]);
        // Two of 40 are taken or left together.
        assert_eq!(of(Cut::Fdr(0.49 * q(40.0))), [1, 3]);
        assert_eq!(of(Cut::Fdr(0.51 * q(40.0))), [0, 1, 3, 4]);
        assert_eq!(of(Cut::Fdr(1e-8)), [0, 1, 2, 3, 4]);
        // Guide 0: 40 and 38; guide 1: 250 and 40; guide 2: 50 and none.
        assert_eq!(of(Cut::FdrPerGuide(0.6 * q(40.0))), [1, 3, 4]);
        assert_eq!(of(Cut::FdrPerGuide(1.1 * q(40.0))), [0, 1, 3, 4]);
    }

    #[test]
    fn without_log_odds_they_are_those_of_the_posterior() {
        let scores = [1.0, 0.7, 0.4, 0.9, 0.7, 0.0];
        let even = calls(&scores, Cut::MinLogOdds(0.0), 0.0).pairs;
        assert_eq!(even, calls(&scores, Cut::MinConfidence(0.5), 0.0).pairs);
        assert_eq!(calls(&scores, Cut::MinLogOdds(1e3), 0.0).pairs, [0]);
        assert_eq!(calls(&scores, Cut::MinLogOdds(-1e3), 0.0).pairs, [0, 1, 2, 3, 4]);
    }

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
            let calls = decide(&counts, &scores[..], &Rule { cut: Cut::MinConfidence(cut), min_umi }).unwrap();
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
        for cut in
            [Cut::MinConfidence(0.1), Cut::MinLogOdds(-2.0), Cut::TopShare(0.2), Cut::Fdr(0.3), Cut::FdrPerGuide(0.4)]
        {
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
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(Rule { cut: Cut::MinLogOdds(value), min_umi: 0.0 }.check().is_err());
        }
        assert!(Rule { cut: Cut::MinLogOdds(-20.0), min_umi: 0.0 }.check().is_ok());
    }
}
