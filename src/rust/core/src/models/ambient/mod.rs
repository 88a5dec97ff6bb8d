//! ambient: one generative model of the whole matrix, learnt from all guides and cells together.
//!
//! The count of guide g in cell c of batch b, with z = 1 if the cell carries the guide, is y = N + C + z S:
//!
//!   N ~ NB(mean e q_g, size a)                                ambient UMIs
//!   C ~ NB(mean m_g = h D_g l_g + t e q_g, size m_g / v)    bursts of UMIs, of variance m_g (1 + v): chimeras of the other
//!                                                             UMIs of the cell, and ambient UMIs in bursts
//!   S ~ NB(mean d f_g, size r)                                signal
//!   e ~ gamma(shape s, mean A_b x^beta), one in a hundred from a wide gamma instead    exposure of the cell to ambient UMIs
//!   d ~ gamma(shape k, mean d_b x^gamma), d_b being 1 on average                       capture of the cell
//!   z ~ Bernoulli(pi_g), independent but for the cell without any guide, whose odds are multiplied by w
//!
//! l_g is the guide's share of all UMIs, D_g the UMIs of the cell in guides with more than y, x a covariate of the cell over its mean. e and d are summed out
//! on nodes that follow the posterior of each cell (`cell`), so the likelihood is exact but for the spacing of the nodes, and a
//! posterior is what all counts of the cell say together. The likelihood is that of cells with UMIs: those without change nothing.
//!
//! All parameters have priors (`params`); what is climbed is the log-likelihood with them. EM moves guides, batches and
//! shapes (`update`), with what a pass over the cells learns (`pass`); the sizes and the bursts, whose M-step has no closed form,
//! are searched between (`em`). Sums run over fixed blocks of cells, so threads do not change a bit.
//!
//! The soup as a negative binomial with cell exposures: Fleming et al. 2023 (CellBender, doi:10.1038/s41592-023-01943-7). EM
//! with expanded parameters: Liu, Rubin and Wu 1998 (doi:10.1093/biomet/85.4.755).
mod background;
mod cell;
mod em;
mod grid;
mod lessons;
mod nodes;
mod params;
mod pass;
mod report;
mod sample;
mod start;
mod tables;
#[cfg(test)]
mod tests;
mod update;

use super::{bounded_log_odds, Control, DefaultRule, Model, ModelInfo, Scores, MOST_LOG_ODDS};
use crate::counts::GuideCounts;
use crate::fit::FitTable;
use crate::run::Progress;
use crate::Result;
use em::{Climb, Fit};
use sample::Sample;

/// Cells and stored counts, at most, that starts are compared on, that the screen is learnt from, and that guides learn from.
const STARTING: (usize, usize) = (2_000, 16_000);
const TRAINING: (usize, usize) = (20_000, 60_000);
const SETTLING: (usize, usize) = (usize::MAX, 800_000);
const SETTLING_ROUNDS: usize = 1;
/// Stored counts, at most, that shared parameters are searched on; half of them on the way.
const SEARCHED_COUNTS: usize = 8_000;
/// With so few guides there are several explanations: all starts are climbed to the end, and those that end so many nats apart on
/// the whole sample, too.
const FEW_GUIDES: usize = 3;
const NEAR: f64 = 12.0;
const SHORT_ROUNDS: usize = 8;
/// A round over the cells counts as so many iterations of a mixture; and what converged means, in tolerances per cell.
const ITERATIONS_PER_ROUND: usize = 5;
const TOLERANCES: f64 = 20.0;
/// Penalty of the verdict in nats: per guide whose parameters are learnt, not just shrunken to what guides have in common (with
/// one carrier half of them are), and per logarithm of the cells.
const PER_GUIDE: f64 = 1.5;
const PER_LN_CELLS: f64 = 2.5;
/// Least mean signal, UMIs.
const LEAST_SIGNAL: f64 = 2.0;
/// UMIs of a single guide come from its carriers: where one population explains all, and its cells with UMIs have this many on
/// average, it carries the guide.
const POPULATION_UMIS: f64 = 3.0;

pub struct Ambient;

impl Model for Ambient {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "ambient",
            family: "mixture",
            unit: "screen",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.5),
            uses_batch: true,
            uses_depth: true,
            about:
                "the whole matrix at once: ambient and chimeric UMIs per cell, signal per guide, shrunken across guides",
            when: "Whenever it can be afforded: needs no choice, best on hard data, also for guides in few cells.",
        }
    }

    fn uses_covariate(&self) -> bool {
        true
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        let of_guide = counts.per_guide(|(cells, umis), y| (*cells, *umis) = (*cells + 1, *umis + y), add);
        let live: Vec<bool> = of_guide.iter().map(|&(cells, _): &(usize, f64)| cells > 0).collect();
        if !live.contains(&true) {
            return Ok(Scores {
                fits: FitTable::of_units("guide", &report::names(), &report::rows(&of_guide, None, None)),
                screen: report::screen(None, counts),
                ..Scores::default()
            });
        }
        let umis: f64 = of_guide.iter().map(|guide| guide.1).sum();
        let library: Vec<f64> = of_guide.iter().map(|guide| guide.1 / umis).collect();
        let training = Sample::some(counts, TRAINING);
        let climb = Climb { sample: &training, live: &live, searched: SEARCHED_COUNTS, progress };
        let rounds = (control.iterations / ITERATIONS_PER_ROUND).max(1);
        let gain = TOLERANCES * control.tolerance;

        let few = Sample::some(counts, STARTING);
        let on_few = Climb { sample: &few, searched: SEARCHED_COUNTS / 2, ..climb };
        let mut starts = self.starts(&on_few, counts, &library, control)?;
        let all_carried = (counts.n_guides() == 1).then(|| starts[starts.len() - 1].clone());
        starts.sort_by(|a, b| b.objective.total_cmp(&a.objective));
        // Starts are told apart, and what the screen shares is nearly learnt, from a part of it.
        let mut best = f64::NEG_INFINITY;
        for start in &mut starts {
            start.climb(&on_few, gain, rounds, best)?;
            best = best.max(start.objective);
        }
        starts.sort_by(|a, b| b.objective.total_cmp(&a.objective));
        let mut fit = starts.remove(0);
        let on_part = fit.objective;
        fit.start_over();
        fit.climb(&climb, gain, rounds, f64::NEG_INFINITY)?;
        for mut other in starts {
            // Nearly as good on a part, and another explanation: all of the sample decides.
            let is_near = counts.n_guides() <= FEW_GUIDES && other.objective > on_part - NEAR;
            if is_near && other.params.is_apart(&fit.params) {
                other.start_over();
                other.climb(&climb, gain, rounds, fit.objective)?;
                if other.objective > fit.objective {
                    fit = other;
                }
            }
        }

        // The same screen without carriers.
        let n_cells = training.cells.len() as f64;
        let learnt: f64 = fit.params.prior.iter().map(|pi| pi * n_cells / (1.0 + pi * n_cells)).sum();
        let penalty = PER_GUIDE * learnt + PER_LN_CELLS * n_cells.ln();
        let mut soup = Fit::new(start::without_carriers(&training, &library, counts.n_batches(), &fit.params), true);
        soup.climb(&climb, gain, rounds, fit.objective - 2.0 * penalty - 100.0)?;
        fit.bic_gain = 2.0 * (fit.ln_lik - soup.ln_lik - penalty);
        let mut no_signal = (fit.bic_gain <= 0.0).then_some("ambient and chimeric UMIs alone explain the screen (BIC)");
        if let (Some(all_carried), Some(_)) = (all_carried, no_signal) {
            if umis >= POPULATION_UMIS * of_guide[0].0 as f64 {
                let bic_gain = fit.bic_gain;
                fit = all_carried;
                (fit.bic_gain, no_signal) = (bic_gain, None);
                fit.note = "one population explains all counts; it is taken to carry the guide";
            }
        }

        let all = Sample::some(counts, (usize::MAX, usize::MAX));
        if training.cells.len() < all.cells.len() {
            // Guides learn from more cells.
            let some = Sample::some(counts, SETTLING);
            fit.settle(&Climb { sample: &some, ..climb }, SETTLING_ROUNDS)?;
        }
        let known = pass::posteriors(&fit.params, &all, progress)?;
        if no_signal.is_none() && fit.params.mean_signal() < LEAST_SIGNAL {
            no_signal =
                Some("what looks like signal averages under 2 UMIs: it cannot be told from uneven ambient UMIs");
        }
        let of_pairs = |f: &dyn Fn(&lessons::Pair) -> f64, without: f64| -> Vec<f64> {
            known.pairs.iter().map(|pair| if no_signal.is_some() { without } else { f(pair) }).collect()
        };
        Ok(Scores {
            score: of_pairs(&|pair| pair.carried, 0.0),
            log_odds: match control.log_odds {
                true => of_pairs(&|pair| bounded_log_odds(pair.ln_odds, pair.carried), -MOST_LOG_ODDS),
                false => vec![],
            },
            fits: FitTable::of_units("guide", &report::names(), &report::rows(&of_guide, Some(&fit), no_signal)),
            cells: report::cells(&known, &all, counts.n_cells()),
            screen: report::screen(Some(&fit), counts),
        })
    }
}

impl Ambient {
    /// Short climbs, on some cells, from posteriors of each guide by itself and by its share of the cell; with few guides also
    /// from all carried, which is the last.
    fn starts(&self, climb: &Climb, counts: &GuideCounts, library: &[f64], control: &Control) -> Result<Vec<Fit>> {
        let few = climb.sample;
        let mut posteriors = vec![start::each_guide(few, control, climb.progress)?];
        if control.starts > 1 {
            posteriors.push(start::by_share(few, library));
        }
        let mut rounds = SHORT_ROUNDS;
        if counts.n_guides() <= FEW_GUIDES {
            posteriors.push(vec![1.0; few.n_counts]);
            rounds = control.iterations / ITERATIONS_PER_ROUND;
        }
        let fit = |posterior: Vec<f64>| {
            let params = start::start(few, library, &posterior, climb.live, counts.n_batches());
            let mut fit = Fit::new(params, false);
            fit.climb(climb, 5.0 * TOLERANCES * control.tolerance, rounds, f64::NEG_INFINITY)?;
            Ok(fit)
        };
        posteriors.into_iter().map(fit).collect()
    }
}

fn add(to: &mut (usize, f64), from: (usize, f64)) {
    *to = (to.0 + from.0, to.1 + from.1);
}
