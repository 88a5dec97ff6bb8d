//! Properties of counts, decisions and the cheap models on arbitrary small screens.
use kaichi_core::counts::{first_bad_count, is_count, GuideCounts};
use kaichi_core::decide::{decide, set_probability, Calls, Cut, Rule};
use kaichi_core::models::{find, Control};
use kaichi_core::run::{on_threads, Progress};
use proptest::prelude::*;

/// Rows of a cells x guides matrix.
#[derive(Debug, Clone)]
struct Screen {
    n_guides: usize,
    indptr: Vec<i32>,
    guides: Vec<i32>,
    counts: Vec<f64>,
}

impl Screen {
    fn view(&self) -> GuideCounts<'_> {
        GuideCounts::new(self.n_guides, &self.indptr, &self.guides, &self.counts, None).unwrap()
    }

    /// (cell, guide, count) of every stored count.
    fn triplets(&self) -> Vec<(usize, i32, f64)> {
        let cells = self.indptr.windows(2).enumerate();
        let cells = cells.flat_map(|(cell, ends)| (ends[0]..ends[1]).map(move |at| (cell, at as usize)));
        cells.map(|(cell, at)| (cell, self.guides[at], self.counts[at])).collect()
    }
}

fn screens() -> impl Strategy<Value = Screen> {
    let count = prop_oneof![4 => 1u32..4, 2 => 4u32..60, 1 => 60u32..100_000];
    let rows = |n_guides| {
        let cell = prop::collection::vec(prop::option::weighted(0.4, count), n_guides);
        prop::collection::vec(cell, 1..40)
    };
    (1usize..8).prop_flat_map(move |n_guides| (Just(n_guides), rows.clone()(n_guides))).prop_map(|(n_guides, rows)| {
        let mut screen = Screen { n_guides, indptr: vec![0], guides: vec![], counts: vec![] };
        for row in rows {
            for (guide, count) in row.into_iter().enumerate() {
                if let Some(count) = count {
                    screen.guides.push(guide as i32);
                    screen.counts.push(f64::from(count));
                }
            }
            screen.indptr.push(screen.guides.len() as i32);
        }
        screen
    })
}

/// Screens with a score for each count, many of them equal.
fn scored() -> impl Strategy<Value = (Screen, Vec<f64>)> {
    let score = prop_oneof![Just(0.0), Just(0.5), Just(0.9), Just(1.0), 0.0..1.0f64];
    screens().prop_flat_map(move |screen| {
        let n = screen.counts.len();
        (Just(screen), prop::collection::vec(score.clone(), n))
    })
}

fn cuts() -> impl Strategy<Value = Cut> {
    prop_oneof![
        (0.0..=1.0f64).prop_map(Cut::MinConfidence),
        (0.0..=1.0f64).prop_map(Cut::TopShare),
        (0.001..=1.0f64).prop_map(Cut::Fdr),
        (0.001..=1.0f64).prop_map(Cut::FdrPerGuide),
    ]
}

fn calls(screen: &Screen, scores: &[f64], rule: Rule, threads: usize) -> Calls {
    let counts = screen.view();
    on_threads(threads, || decide(&counts, scores, &rule)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_count_is_a_whole_number_that_fits(value in prop_oneof![any::<f64>(), (-3.0..70_000.0f64).prop_map(f64::round)]) {
        let naive = (0.0..=2_147_483_647.0).contains(&value) && value == value.trunc();
        prop_assert_eq!(is_count(value), naive);
        prop_assert_eq!(first_bad_count(&[1.0, value]).map(|bad| bad.position), (!naive).then_some(1));
    }

    #[test]
    fn counts_by_guide_are_the_counts_by_cell(screen in screens()) {
        let counts = screen.view();
        let mut by_cell = vec![];
        for guide in 0..screen.n_guides {
            for entry in counts.by_guide().guide(guide) {
                by_cell.push((entry.position as usize, guide as i32));
            }
        }
        by_cell.sort_unstable();
        let expected: Vec<_> = screen.guides.iter().copied().enumerate().collect();
        prop_assert_eq!(by_cell, expected);
        let triplets = screen.triplets();
        for cell in 0..counts.n_cells() {
            let depth: f64 = triplets.iter().filter(|t| t.0 == cell).map(|t| t.2).sum();
            prop_assert_eq!(counts.depth()[cell], depth);
        }
        for (guide, &n) in counts.cells_per_guide().iter().enumerate() {
            prop_assert_eq!(n, triplets.iter().filter(|t| t.1 == guide as i32).count());
        }
    }

    #[test]
    fn calls_are_pairs_that_may_be_called((screen, scores) in scored(), cut in cuts(), min_umi in 0.0..5.0f64) {
        let rule = Rule { cut, min_umi };
        let one = calls(&screen, &scores, rule, 1);
        let two = calls(&screen, &scores, rule, 2);
        prop_assert_eq!((&one.pairs, &one.indptr, &one.best), (&two.pairs, &two.indptr, &two.best));
        prop_assert_eq!(one.indptr.len(), screen.indptr.len());
        prop_assert!(one.pairs.windows(2).all(|pair| pair[0] < pair[1]));
        // A share of each guide's counts is called whatever their scores.
        let may = |at: usize| (scores[at] > 0.0 || matches!(cut, Cut::TopShare(_))) && screen.counts[at] >= min_umi;
        prop_assert!(one.pairs.iter().all(|&at| may(at)));
        for (cell, ends) in one.indptr.windows(2).enumerate() {
            let called = &one.pairs[ends[0]..ends[1]];
            let row = screen.indptr[cell] as usize..screen.indptr[cell + 1] as usize;
            prop_assert!(called.iter().all(|at| row.contains(at)));
            // The best call: nothing called in the cell is better, and it is called itself.
            prop_assert_eq!(one.best[cell].is_some(), !called.is_empty());
            if let Some(best) = one.best[cell] {
                prop_assert!(called.contains(&best));
                prop_assert!(called.iter().all(|&at| scores[at] <= scores[best]));
            }
        }
        let counts = screen.view();
        let sets = set_probability(&counts, &scores, &one);
        prop_assert!(sets.iter().all(|p| (0.0..=1.0).contains(p)), "{:?}", sets);
    }

    #[test]
    fn a_lower_threshold_calls_no_less((screen, scores) in scored(), a in 0.0..=1.0f64, b in 0.0..=1.0f64) {
        let at = |cut| calls(&screen, &scores, Rule { cut, min_umi: 0.0 }, 1).pairs;
        let more = at(Cut::MinConfidence(a.min(b)));
        prop_assert!(at(Cut::MinConfidence(a.max(b))).iter().all(|pair| more.contains(pair)));
        let more = at(Cut::Fdr(a.max(b).max(0.01)));
        prop_assert!(at(Cut::Fdr(a.min(b).max(0.01))).iter().all(|pair| more.contains(pair)));
    }

    #[test]
    fn the_expected_share_of_false_calls_is_kept((screen, scores) in scored(), fdr in 0.001..0.5f64) {
        let called = calls(&screen, &scores, Rule { cut: Cut::Fdr(fdr), min_umi: 0.0 }, 1).pairs;
        let expected_false: f64 = called.iter().map(|&at| 1.0 - scores[at]).sum();
        prop_assert!(expected_false <= fdr * called.len() as f64 * (1.0 + 1e-9), "{expected_false} of {}", called.len());
        let worst = called.iter().map(|&at| scores[at]).fold(1.0, f64::min);
        let left = (0..scores.len()).filter(|at| !called.contains(at)).map(|at| scores[at]).fold(0.0, f64::max);
        prop_assert!(called.is_empty() || left < worst, "{left} is left, {worst} is called");
    }

    #[test]
    fn cheap_models_score_every_count_and_tell_of_every_guide(screen in screens()) {
        for name in ["umi", "max", "ratio", "quantiles", "gauss", "poisson_gauss"] {
            let model = find(name).unwrap();
            let counts = screen.view();
            let score = |threads| on_threads(threads, || model.score(&counts, &Control::default(), &Progress::default()));
            let scores = score(1).unwrap();
            prop_assert_eq!(scores.score.len(), screen.counts.len(), "{}", name);
            prop_assert!(scores.score.iter().all(|score| score.is_finite() && *score >= 0.0), "{}", name);
            prop_assert_eq!(&scores.score, &score(2).unwrap().score, "{}", name);
            for (column, values) in &scores.fits.columns {
                prop_assert_eq!(values.len(), screen.n_guides, "{} {}", name, column);
            }
            if model.info().confidence == "posterior" {
                prop_assert!(scores.score.iter().all(|score| *score <= 1.0), "{}", name);
            }
            // More UMIs of a guide never score less, where a guide is all the model looks at.
            if model.by_histogram().is_some() {
                let mut pairs: Vec<_> = screen.guides.iter().zip(&screen.counts).zip(&scores.score).collect();
                pairs.sort_by(|a, b| a.0 .0.cmp(b.0 .0).then(a.0 .1.total_cmp(b.0 .1)));
                let falls = pairs.windows(2).any(|w| w[0].0 .0 == w[1].0 .0 && w[0].1 > w[1].1);
                prop_assert!(!falls, "{} {:?}", name, pairs);
            }
        }
    }
}
