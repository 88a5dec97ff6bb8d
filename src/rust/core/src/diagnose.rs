//! What the calls of a guide are worth, so that a bad guide is seen before it does harm.
use crate::counts::GuideCounts;
use crate::decide::Calls;

/// The calls of one guide.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    pub n_cells_called: usize,
    /// The smallest count called.
    pub min_umi_called: Option<f64>,
    /// Sum of the scores of its stored counts: the cells that carry it, as the model sees it. NaN without posteriors.
    pub expected_cells: f64,
    /// Mean score of the calls. NaN without calls or posteriors.
    pub expected_precision: f64,
    /// Share of `expected_cells` that is called. NaN where that is 0, or without posteriors.
    pub expected_recall: f64,
    /// How far apart the components are: the mean score of its carriers less that of its other cells with UMIs of it, carriers
    /// and others weighted by the scores themselves. 1 where every cell is certain, 0 where all are alike. NaN without
    /// expected cells or posteriors.
    pub separation: f64,
    /// In words, parted by "; "; empty when all is well.
    pub warning: String,
}

const FEW_CELLS: usize = 5;
const LOW_PRECISION: f64 = 0.8;
const LOW_RECALL: f64 = 0.5;
const MOST_CELLS: f64 = 0.5;
const HARDLY_ANY_CELL: f64 = 0.1;
const MOST_CALLS: f64 = 0.5;

/// One for each guide. `posterior` says that scores are probabilities, `status` how each guide's fit ended; it may be empty.
pub fn diagnose(
    counts: &GuideCounts,
    scores: &[f64],
    calls: &Calls,
    posterior: bool,
    status: &[String],
) -> Vec<Diagnosis> {
    let mut sums = Sums::new(counts.n_guides());
    sums.add(counts, scores, calls);
    sums.finish(posterior, status)
}

/// What [`diagnose`] needs of the cells, which may come in several blocks: sums in the order of the cells, so that the blocks
/// leave no trace in them.
pub struct Sums {
    /// Cells, and those with any guide UMI.
    cells: usize,
    with_counts: usize,
    guides: Vec<SumsOfGuide>,
    called: Vec<SumsOfCalled>,
}

#[derive(Clone, Default)]
struct SumsOfGuide {
    n_cells: usize,
    sum: f64,
    square: f64,
}

/// Over the calls of a guide.
#[derive(Clone, Default)]
struct SumsOfCalled {
    n: usize,
    sum: f64,
    least: Option<f64>,
    /// Calls of one UMI.
    single: usize,
}

impl Sums {
    pub fn new(n_guides: usize) -> Self {
        let (guides, called) = (vec![SumsOfGuide::default(); n_guides], vec![SumsOfCalled::default(); n_guides]);
        Sums { cells: 0, with_counts: 0, guides, called }
    }

    /// Adds the next cells.
    pub fn add(&mut self, counts: &GuideCounts, scores: &[f64], calls: &Calls) {
        self.cells += counts.n_cells();
        self.with_counts += counts.depth().iter().filter(|&&depth| depth > 0.0).count();
        let of_pairs = |guides: &mut [SumsOfCalled]| {
            for &at in &calls.pairs {
                let count = counts.counts()[at];
                let guide = &mut guides[counts.guides()[at] as usize];
                guide.n += 1;
                guide.sum += scores[at];
                guide.single += usize::from(count <= 1.0);
                guide.least = Some(guide.least.map_or(count, |least: f64| least.min(count)));
            }
        };
        let of_counts = |guides: &mut [SumsOfGuide]| {
            for (&guide, &score) in counts.guides().iter().zip(scores) {
                let guide = &mut guides[guide as usize];
                guide.n_cells += 1;
                guide.sum += score;
                guide.square += score * score;
            }
        };
        rayon::join(|| of_pairs(&mut self.called), || of_counts(&mut self.guides));
    }

    /// Cells with each guide.
    pub fn cells_per_guide(&self) -> Vec<usize> {
        self.guides.iter().map(|guide| guide.n_cells).collect()
    }

    pub fn finish(&self, posterior: bool, status: &[String]) -> Vec<Diagnosis> {
        let (cells, with_counts) = (self.cells as f64, self.with_counts as f64);
        let if_posterior = |value: f64| if posterior { value } else { f64::NAN };
        let diagnosis = |(at, (guide, of_calls)): (usize, (&SumsOfGuide, &SumsOfCalled))| {
            let (n_cells, sum, square) = (guide.n_cells as f64, guide.sum, guide.square);
            let called = of_calls.n;
            // 0 / 0 is NaN: nothing called, nothing expected.
            let expected_precision = if_posterior(of_calls.sum / called as f64);
            let expected_recall = if_posterior(of_calls.sum / sum);
            let others = n_cells - sum;
            let of_others = if others > 0.0 { (sum - square) / others } else { 0.0 };
            let separation = if_posterior(square / sum - of_others);
            let mut words = vec![];
            match status.get(at).map(String::as_str) {
                Some("gated") => words.push("too little to fit"),
                Some("no_signal") => words.push("no signal"),
                Some("not_converged") => words.push("fit not converged"),
                _ => {}
            }
            let fitted = !words.iter().any(|&word| word == "too little to fit" || word == "no signal");
            if fitted && called < FEW_CELLS {
                words.push("few cells");
            }
            if called >= FEW_CELLS && of_calls.single as f64 > MOST_CALLS * called as f64 {
                words.push("most calls are single UMIs");
            }
            if expected_precision < LOW_PRECISION {
                words.push("calls are uncertain");
            }
            // Less than one cell's worth of signal is nobody's loss.
            if expected_recall < LOW_RECALL && sum >= 1.0 {
                words.push("overlapping components: most of the signal lies below the cut");
            }
            if n_cells > MOST_CELLS * with_counts && (called as f64) < HARDLY_ANY_CELL * with_counts {
                words.push("background in most cells");
            }
            if called as f64 > MOST_CELLS * cells {
                words.push("present in most cells");
            }
            Diagnosis {
                n_cells_called: called,
                min_umi_called: of_calls.least,
                expected_cells: if_posterior(sum),
                expected_precision,
                expected_recall,
                separation,
                warning: words.join("; "),
            }
        };
        self.guides.iter().zip(&self.called).enumerate().map(diagnosis).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{decide, Cut, Rule};

    /// One guide, one count and score per cell; `extra` cells carry another guide only.
    fn of(scores: &[f64], cut: f64, extra: usize, posterior: bool, status: &str) -> Diagnosis {
        let n = scores.len();
        let p: Vec<i32> = (0..=(n + extra) as i32).collect();
        let i: Vec<i32> = (0..n + extra).map(|cell| i32::from(cell >= n)).collect();
        let x: Vec<f64> = (0..n + extra).map(|cell| 3.0 + cell as f64).collect();
        let scores = [scores, &vec![0.0; extra]].concat();
        let counts = GuideCounts::new(2, &p, &i, &x, None).unwrap();
        let calls = decide(&counts, &scores, &Rule { cut: Cut::MinConfidence(cut), min_umi: 0.0 }).unwrap();
        let status = if status.is_empty() { vec![] } else { vec![status.to_string(), "ok".into()] };
        diagnose(&counts, &scores, &calls, posterior, &status).swap_remove(0)
    }

    #[test]
    fn expectations_are_sums_of_posteriors() {
        let got = of(&[0.1, 0.9, 0.9, 1.0, 1.0, 1.0, 0.6], 0.8, 20, true, "ok");
        assert_eq!((got.n_cells_called, got.min_umi_called), (5, Some(4.0)));
        assert!((got.expected_cells - 5.5).abs() < 1e-12);
        assert!((got.expected_precision - 0.96).abs() < 1e-12);
        assert!((got.expected_recall - 4.8 / 5.5).abs() < 1e-12);
        assert_eq!(got.warning, "");
        let none = of(&[0.0; 3], 0.8, 20, true, "ok");
        assert!(none.expected_precision.is_nan() && none.expected_recall.is_nan());
        assert_eq!((none.expected_cells, none.min_umi_called), (0.0, None));
        let share = of(&[1.0; 6], 0.8, 20, false, "ok");
        // Carriers average (2 * 0.81 + 0.01 + 0.36 + 3) / 5.5, others (2 * 0.09 + 0.09 + 0.24) / 1.5.
        assert!((got.separation - (4.99 / 5.5 - 0.51 / 1.5)).abs() < 1e-12);
        assert_eq!(of(&[1.0; 6], 0.8, 20, true, "ok").separation, 1.0);
        assert!(of(&[0.3; 6], 0.8, 20, true, "ok").separation.abs() < 1e-12);
        assert!(none.separation.is_nan() && share.separation.is_nan());
        assert!(share.expected_precision.is_nan() && share.expected_recall.is_nan() && share.expected_cells.is_nan());
    }

    #[test]
    fn every_warning_has_its_cause() {
        let words = |scores: &[f64], cut, extra, status| of(scores, cut, extra, true, status).warning;
        assert_eq!(words(&[0.0; 4], 0.8, 20, "gated"), "too little to fit");
        assert_eq!(words(&[0.0; 4], 0.8, 20, "no_signal"), "no signal");
        assert_eq!(words(&[1.0; 6], 0.8, 20, "not_converged"), "fit not converged");
        assert_eq!(words(&[1.0; 4], 0.8, 20, ""), "few cells");
        assert_eq!(words(&[0.79; 6], 0.5, 20, "ok"), "calls are uncertain");
        assert_eq!(words(&[0.81; 6], 0.5, 20, "ok"), "");
        let overlap = [vec![1.0; 6], vec![0.7; 10]].concat();
        assert_eq!(words(&overlap, 0.9, 40, "ok"), "overlapping components: most of the signal lies below the cut");
        assert_eq!(words(&overlap[..14], 0.9, 40, "ok"), "");
        // Less than one cell expected: only few.
        assert_eq!(words(&[0.3; 3], 0.9, 40, "ok"), "few cells");
        let background = [vec![1.0; 9], vec![0.0; 91]].concat();
        assert_eq!(words(&background, 0.9, 90, "ok"), "background in most cells");
        assert_eq!(words(&background, 0.9, 100, "ok"), "");
        assert_eq!(words(&[1.0; 11], 0.9, 10, "ok"), "present in most cells");
        assert_eq!(words(&[1.0; 10], 0.9, 10, "ok"), "");
        assert_eq!(words(&[0.5; 11], 0.5, 10, "ok"), "calls are uncertain; present in most cells");
    }

    #[test]
    fn calls_of_one_umi_are_named_where_they_are_most() {
        // `single` cells of one UMI and `more` of nine, all called, among 20 of another guide.
        let words = |single: usize, more: usize| {
            let n = single + more;
            let p: Vec<i32> = (0..=(n + 20) as i32).collect();
            let i: Vec<i32> = (0..n + 20).map(|cell| i32::from(cell >= n)).collect();
            let x = [vec![1.0; single], vec![9.0; more + 20]].concat();
            let counts = GuideCounts::new(2, &p, &i, &x, None).unwrap();
            let scores = vec![1.0; n + 20];
            let calls = decide(&counts, &scores, &Rule { cut: Cut::MinConfidence(0.5), min_umi: 0.0 }).unwrap();
            diagnose(&counts, &scores, &calls, true, &[]).swap_remove(0).warning
        };
        assert_eq!(words(6, 5), "most calls are single UMIs");
        assert_eq!(words(5, 5), "");
        assert_eq!(words(4, 0), "few cells");
    }
}
