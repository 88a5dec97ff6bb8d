//! The climb: passes and M-steps, with a search of the shared parameters between them.
use super::nodes::{Place, SETTLING, TRAINING};
use super::params::{Params, SEARCHED};
use super::pass::{self, Sums};
use super::sample::Sample;
use super::tables::Tables;
use crate::run::Progress;
use crate::Result;

/// Rounds from search to search.
const SEARCH_EVERY: usize = 2;
/// A fit has converged when two searches in a row gained less than this, and so much per cell.
const LEAST_GAIN: f64 = 0.5;
/// A step that falls is halved so often at most; and what sums over nodes, which follow their cells, are off by in a cell.
const MOST_HALVINGS: usize = 3;
const ROUNDING: f64 = 5e-4;
const LEAST_STEP: f64 = 0.05;

/// A fit on its way.
#[derive(Clone)]
pub struct Fit {
    pub params: Params,
    pub soup_only: bool,
    /// Penalised log-likelihood, and the log-likelihood in it.
    pub objective: f64,
    pub ln_lik: f64,
    pub rounds: usize,
    pub converged: bool,
    /// BIC of the soup alone less that of the model.
    pub bic_gain: f64,
    /// What else is to be said of it.
    pub note: &'static str,
    steps: [f64; SEARCHED.len()],
    places: Vec<Option<Place>>,
}

/// What a climb is given.
#[derive(Clone, Copy)]
pub struct Climb<'a> {
    pub sample: &'a Sample<'a>,
    pub live: &'a [bool],
    /// Stored counts that the search looks at.
    pub searched: usize,
    pub progress: &'a Progress,
}

impl Fit {
    pub fn new(params: Params, soup_only: bool) -> Self {
        let mut steps = [0.0; SEARCHED.len()];
        steps.iter_mut().zip(&SEARCHED).for_each(|(step, param)| *step = param.step);
        Self {
            params,
            soup_only,
            objective: f64::NEG_INFINITY,
            ln_lik: f64::NEG_INFINITY,
            rounds: 0,
            converged: false,
            bic_gain: f64::NAN,
            note: "",
            steps,
            places: vec![],
        }
    }

    /// Shared parameters that only their bound keeps from being more extreme.
    pub fn at_bound(&self) -> Vec<&'static str> {
        SEARCHED.iter().filter(|param| param.is_at_bound(&self.params.shared)).map(|param| param.name).collect()
    }

    /// For another sample.
    pub fn start_over(&mut self) {
        self.places.clear();
        self.rounds = 0;
    }

    /// Rounds until one with its search gains less than `gain` per cell, or up to so many.
    /// A fit that cannot come within `FAR` of `enough` is left.
    pub fn climb(&mut self, climb: &Climb, gain: f64, most: usize, enough: f64) -> Result<()> {
        self.places.resize(climb.sample.patterns.len(), None);
        let n = climb.sample.cells.len().max(1) as f64;
        let mut sums = pass::pass(&self.params, climb.sample, &mut self.places, TRAINING, climb.progress)?;
        self.converged = false;
        let mut base = f64::NEG_INFINITY;
        let mut idle = 0;
        let mut moved = true;
        while self.rounds < most {
            climb.progress.check()?;
            self.rounds += 1;
            if self.rounds % SEARCH_EVERY == 1 {
                // What is gained counts from here on by the priors as they are now.
                base -= self.params.ln_prior();
                self.params.refresh(&sums, climb.live);
                base += self.params.ln_prior();
            }
            self.objective = sums.ln_lik + self.params.ln_prior();
            if self.rounds % SEARCH_EVERY == 0 {
                // Left if many times what it gained last would not do.
                if self.objective + 10.0 * (self.objective - base) < enough {
                    break;
                }
                if self.objective - base < LEAST_GAIN + gain * n {
                    idle += 1;
                    if idle == 2 {
                        self.converged = true;
                        break;
                    }
                } else {
                    idle = 0;
                }
                base = self.objective;
                let before = (self.params.clone(), sums);
                self.search(climb)?;
                sums = pass::pass(&self.params, climb.sample, &mut self.places, TRAINING, climb.progress)?;
                moved = true;
                if sums.ln_lik + self.params.ln_prior() < self.objective {
                    // What some of the cells gain, all may lose.
                    (self.params, sums) = before;
                    self.steps.iter_mut().for_each(|step| *step = (0.5 * *step).max(LEAST_STEP));
                }
                self.objective = sums.ln_lik + self.params.ln_prior();
            }
            if moved {
                (sums, moved) = self.step(climb, sums)?;
            }
        }
        self.ln_lik = sums.ln_lik;
        self.objective = sums.ln_lik + self.params.ln_prior();
        Ok(())
    }

    /// M-steps on more cells, without a search.
    pub fn settle(&mut self, climb: &Climb, rounds: usize) -> Result<()> {
        self.places = vec![None; climb.sample.patterns.len()];
        for _ in 0..rounds {
            climb.progress.check()?;
            let sums = pass::pass(&self.params, climb.sample, &mut self.places, SETTLING, climb.progress)?;
            self.params.refresh(&sums, climb.live);
            self.params.update(&sums, climb.live, self.soup_only);
        }
        Ok(())
    }

    /// An M-step and the pass after it; shortened where the objective would fall. Says whether it moved.
    fn step(&mut self, climb: &Climb, sums: Sums) -> Result<(Sums, bool)> {
        let from = self.params.clone();
        let here = sums.ln_lik + from.ln_prior();
        self.params.update(&sums, climb.live, self.soup_only);
        for _ in 0..MOST_HALVINGS {
            let next = pass::pass(&self.params, climb.sample, &mut self.places, TRAINING, climb.progress)?;
            let there = next.ln_lik + self.params.ln_prior();
            if there >= here - ROUNDING * next.cells {
                return Ok((next, true));
            }
            self.params.halve_towards(&from);
        }
        self.params = from;
        Ok((sums, false))
    }

    /// One step of all searched parameters at once: each to the top of the parabola through the objective here, a step up and
    /// a step down; shortened until the objective rises.
    fn search(&mut self, climb: &Climb) -> Result<()> {
        let sample = climb.sample;
        let every = (sample.n_patterned / climb.searched).max(1);
        let places = std::mem::take(&mut self.places);
        let signal = Tables::new(&self.params, &sample.classes).signal;
        let at = |offsets: &[f64; SEARCHED.len()]| -> Result<f64> {
            let mut params = self.params.clone();
            params.shift(offsets);
            let is_same = SEARCHED.iter().zip(offsets).all(|(param, &offset)| offset == 0.0 || !param.of_signal);
            let signal = is_same.then_some(&signal);
            let ln_lik = pass::ln_lik(&params, sample, &places, every, signal, climb.progress)?;
            Ok(every as f64 * ln_lik + params.ln_prior())
        };
        let mut offsets = [0.0; SEARCHED.len()];
        let here = at(&offsets)?;
        for (i, param) in SEARCHED.iter().enumerate() {
            let known = param.is_slope && !sample.counts.has_covariate()
                || self.soup_only && (param.of_signal || param.of_chimeras);
            // EM moves the shapes, too.
            if known || param.by_em && self.rounds % (2 * SEARCH_EVERY) == 0 {
                continue;
            }
            let from = param.get(&self.params.shared);
            let step = |offset: f64| -> Result<(f64, f64)> {
                let mut one = [0.0; SEARCHED.len()];
                one[i] = param.offset(from, param.moved(from, offset));
                Ok((one[i], if one[i] == 0.0 { here } else { at(&one)? }))
            };
            let (up, down) = (step(self.steps[i])?, step(-self.steps[i])?);
            let reach = 2.5 * self.steps[i];
            let to = if up.0 == 0.0 || down.0 == 0.0 {
                // At a bound: only the other way is open.
                let open = if up.0 == 0.0 { down } else { up };
                if open.1 > here {
                    open.0
                } else {
                    0.0
                }
            } else {
                let (m_up, m_down) = ((up.1 - here) / up.0, (down.1 - here) / down.0);
                let curve = (m_up - m_down) / (up.0 - down.0);
                let slope = m_up - curve * up.0;
                if curve < 0.0 {
                    (-slope / (2.0 * curve)).clamp(-reach, reach)
                } else {
                    reach * slope.signum()
                }
            };
            // A screen of next to nothing may have no slope.
            let to = if to.is_finite() { to } else { 0.0 };
            offsets[i] = param.offset(from, param.moved(from, to));
            self.steps[i] =
                (offsets[i].abs() * 1.2).clamp(0.4 * self.steps[i], 1.6 * self.steps[i]).clamp(LEAST_STEP, 1.0);
        }
        for _ in 0..5 {
            if at(&offsets)? > here {
                self.params.shift(&offsets);
                break;
            }
            offsets.iter_mut().for_each(|offset| *offset *= 0.4);
        }
        self.places = places;
        Ok(())
    }
}
