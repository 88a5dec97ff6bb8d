//! Guide screens with known truth, and the best that could be known of them.
//!
//! One count of guide g in cell c is the sum of three sources:
//!
//! | source | law | mean |
//! |---|---|---|
//! | signal, if the cell carries g | negative binomial, size `signal_size` | (1 - hopping) * signal_mean * lane depth * capture of c * efficiency of g |
//! | ambient | negative binomial, size `ambient_size` | (1 - hopping) * ambient_mean * lane depth * lane ambient * exposure of c * ambient share of g |
//! | chimeric | Poisson, or negative binomial with variance (1 + `hopping_burst`) x mean | hopping / (1 - hopping) * (signal + ambient UMIs of c) * library share of g |
//!
//! capture ~ log-normal with mean 1, or gamma with the same mean and variance; exposure ~ gamma with mean 1 and shape
//! `ambient_cell_size`; efficiency ~ log-normal with mean 1; abundance of a construct ~ log-normal; ambient share ~
//! abundance x log-normal, or library share x log-normal; library share ~ abundance x efficiency. A size of infinity is the
//! Poisson limit.
//!
//! With `min_depth` a cell is drawn again, within its lane, until it has that many UMIs. Empty droplets follow the cells:
//! barcodes with ambient UMIs, and their chimeras, only.
//!
//! Everything is drawn sparsely: an ambient pair costs one draw per UMI it would have, so time and memory grow with the
//! counts and not with cells x guides. Every cell has its own random stream, so threads do not change the result.
use std::ops::Range;

use statrs::function::gamma::ln_gamma;

use crate::run::Progress;
use crate::special::ln_sum_exp;
use crate::{Error, Result};

/// How many constructs a cell receives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Integrations {
    /// Exactly one.
    One,
    /// A Poisson number with this mean; a construct received twice counts once.
    Poisson(f64),
    /// The same in cells selected for at least one: a Poisson truncated at zero.
    Selected(f64),
}

/// Every parameter of a simulated screen.
#[derive(Debug, Clone, PartialEq)]
pub struct Screen {
    pub n_cells: usize,
    pub n_guides: usize,
    pub integrations: Integrations,
    /// Share of cells without any construct (beyond those that a Poisson leaves empty).
    pub share_empty: f64,
    /// Share of droplets with two cells: the guides of both, captured as one cell.
    pub share_doublet: f64,
    /// Fewest UMIs of a cell. Cells with fewer are drawn again.
    pub min_depth: u64,
    /// Mean signal of a carried guide, UMIs.
    pub signal_mean: f64,
    /// Negative binomial size of the signal.
    pub signal_size: f64,
    /// Standard deviation of the log efficiency of guides.
    pub efficiency_spread: f64,
    /// Standard deviation of the log capture of cells.
    pub capture_spread: f64,
    /// Captures are gamma variates with the variance of that log-normal.
    pub capture_gamma: bool,
    /// Mean ambient UMIs of a cell, over all guides.
    pub ambient_mean: f64,
    /// Negative binomial size of the ambient count of one guide in one cell.
    pub ambient_size: f64,
    /// Gamma shape of the ambient exposure of cells.
    pub ambient_cell_size: f64,
    /// Standard deviation of the log ambient share of guides, beyond their abundance.
    pub ambient_guide_spread: f64,
    /// Ambient shares follow the library, abundance x efficiency, instead of abundance alone.
    pub ambient_library: bool,
    /// Share of a cell's UMIs that are chimeric.
    pub hopping: f64,
    /// Mean number of further UMIs in the burst of a chimeric UMI; 0 is a Poisson number of chimeric UMIs.
    pub hopping_burst: f64,
    /// Standard deviation of the log abundance of constructs.
    pub abundance_spread: f64,
    /// Relative number of cells of each lane.
    pub lane_cells: Vec<f64>,
    /// Factor on all UMIs of each lane.
    pub lane_depth: Vec<f64>,
    /// Factor on the ambient UMIs of each lane.
    pub lane_ambient: Vec<f64>,
    /// Barcodes after the cells that hold no cell.
    pub n_empty_droplets: usize,
    /// Factor on the ambient UMIs of empty droplets.
    pub droplet_ambient: f64,
    /// Two guides to a construct.
    pub dual: bool,
    /// Share of constructs whose second guide is that of another construct.
    pub recombined: f64,
}

/// The named screens and what is hard in each.
pub const SCREENS: [(&str, &str); 8] = [
    ("easy", "low MOI, strong signal, little ambient: nothing is hard"),
    ("noisy", "low MOI, weak and uneven capture, 6 ambient UMIs a cell, hopping, 15 % empty cells, rare guides"),
    ("high_moi", "five guides a cell, 5 ambient UMIs a cell"),
    ("overdispersed", "signal from 1 to thousands of UMIs, ambient overdispersed"),
    ("shallow", "signal of 4 UMIs"),
    ("deep_ambient", "signal of 150 UMIs, 60 ambient UMIs a cell"),
    ("batch_shift", "three lanes with depth 0.25, 1, 4 and ambient 3, 1, 1"),
    ("dual_guide", "two guides a construct, 15 % recombined"),
];

impl Screen {
    /// One of [`SCREENS`], 5,000 cells x 100 guides.
    pub fn named(name: &str) -> Result<Self> {
        let easy = Screen {
            n_cells: 5000,
            n_guides: 100,
            integrations: Integrations::Selected(0.3),
            share_empty: 0.0,
            share_doublet: 0.0,
            min_depth: 0,
            signal_mean: 60.0,
            signal_size: 3.0,
            efficiency_spread: 0.3,
            capture_spread: 0.3,
            capture_gamma: false,
            ambient_mean: 2.0,
            ambient_size: 0.4,
            ambient_cell_size: 5.0,
            ambient_guide_spread: 0.3,
            ambient_library: false,
            hopping: 0.0,
            hopping_burst: 0.0,
            abundance_spread: 0.3,
            lane_cells: vec![1.0],
            lane_depth: vec![1.0],
            lane_ambient: vec![1.0],
            n_empty_droplets: 0,
            droplet_ambient: 0.05,
            dual: false,
            recombined: 0.0,
        };
        Ok(match name {
            "easy" => easy,
            "noisy" => Screen {
                share_empty: 0.15,
                signal_mean: 15.0,
                signal_size: 1.5,
                efficiency_spread: 0.5,
                capture_spread: 0.7,
                ambient_mean: 6.0,
                ambient_size: f64::INFINITY,
                ambient_cell_size: 2.0,
                hopping: 0.05,
                abundance_spread: 1.0,
                ..easy
            },
            "high_moi" => Screen {
                integrations: Integrations::Poisson(5.0),
                signal_mean: 25.0,
                signal_size: 1.5,
                ambient_mean: 5.0,
                ambient_size: 1.0,
                ..easy
            },
            "overdispersed" => Screen {
                signal_mean: 120.0,
                signal_size: 0.38,
                efficiency_spread: 0.8,
                ambient_mean: 5.0,
                ambient_size: 0.2,
                ambient_cell_size: 1.0,
                ..easy
            },
            "shallow" => Screen {
                signal_mean: 4.0,
                signal_size: 4.0,
                capture_spread: 0.35,
                ambient_mean: 2.8,
                ambient_cell_size: 1.5,
                ..easy
            },
            "deep_ambient" => Screen {
                signal_mean: 150.0,
                signal_size: 1.45,
                ambient_mean: 60.0,
                ambient_size: 1.5,
                ambient_cell_size: 2.0,
                ..easy
            },
            "batch_shift" => Screen {
                signal_mean: 30.0,
                ambient_mean: 6.5,
                ambient_size: 2.0,
                lane_depth: vec![0.25, 1.0, 4.0],
                lane_ambient: vec![3.0, 1.0, 1.0],
                ..easy
            },
            "dual_guide" => {
                Screen { signal_mean: 25.0, signal_size: 1.8, ambient_size: 2.0, dual: true, recombined: 0.15, ..easy }
            }
            _ => {
                let names: Vec<&str> = SCREENS.iter().map(|s| s.0).collect();
                return Err(Error::Argument(format!(
                    "There is no screen \"{name}\". Choose one of {}.",
                    names.join(", ")
                )));
            }
        })
    }

    /// Every parameter by name, in the order of the documentation. `moi` is NaN for exactly one construct a cell.
    pub fn values(&self) -> Vec<(&'static str, Vec<f64>)> {
        let moi = match self.integrations {
            Integrations::One => f64::NAN,
            Integrations::Poisson(moi) | Integrations::Selected(moi) => moi,
        };
        let selected = matches!(self.integrations, Integrations::Selected(_));
        vec![
            ("n_cells", vec![self.n_cells as f64]),
            ("n_guides", vec![self.n_guides as f64]),
            ("moi", vec![moi]),
            ("selected", vec![flag(selected)]),
            ("share_empty", vec![self.share_empty]),
            ("share_doublet", vec![self.share_doublet]),
            ("min_depth", vec![self.min_depth as f64]),
            ("signal_mean", vec![self.signal_mean]),
            ("signal_size", vec![self.signal_size]),
            ("efficiency_spread", vec![self.efficiency_spread]),
            ("capture_spread", vec![self.capture_spread]),
            ("capture_gamma", vec![flag(self.capture_gamma)]),
            ("ambient_mean", vec![self.ambient_mean]),
            ("ambient_size", vec![self.ambient_size]),
            ("ambient_cell_size", vec![self.ambient_cell_size]),
            ("ambient_guide_spread", vec![self.ambient_guide_spread]),
            ("ambient_library", vec![flag(self.ambient_library)]),
            ("hopping", vec![self.hopping]),
            ("hopping_burst", vec![self.hopping_burst]),
            ("abundance_spread", vec![self.abundance_spread]),
            ("lane_cells", self.lane_cells.clone()),
            ("lane_depth", self.lane_depth.clone()),
            ("lane_ambient", self.lane_ambient.clone()),
            ("n_empty_droplets", vec![self.n_empty_droplets as f64]),
            ("droplet_ambient", vec![self.droplet_ambient]),
            ("dual", vec![flag(self.dual)]),
            ("recombined", vec![self.recombined]),
        ]
    }

    /// Sets the parameter `name`, as [`Screen::values`] shows it.
    pub fn set(&mut self, name: &str, values: &[f64]) -> Result<()> {
        if !self.values().iter().any(|(known, _)| *known == name) {
            let names: Vec<&str> = self.values().iter().map(|(known, _)| *known).collect();
            return Err(Error::Argument(format!(
                "There is no parameter `{name}` of a screen. The parameters are {}.",
                names.join(", ")
            )));
        }
        let whole = |x: f64, least: f64| {
            if x >= least && x <= f64::from(i32::MAX) && x.fract() == 0.0 {
                Ok(x as usize)
            } else {
                Err(Error::Argument(format!(
                    "`{name}` is {x}; it must be a whole number from {least} to {}.",
                    i32::MAX
                )))
            }
        };
        match name {
            "lane_cells" => self.lane_cells = values.to_vec(),
            "lane_depth" => self.lane_depth = values.to_vec(),
            "lane_ambient" => self.lane_ambient = values.to_vec(),
            _ => {
                let &[x] = values else {
                    return Err(Error::Argument(format!("`{name}` has {} values; it must have one.", values.len())));
                };
                match name {
                    "n_cells" => self.n_cells = whole(x, 1.0)?,
                    "n_guides" => self.n_guides = whole(x, 1.0)?,
                    "moi" if x.is_nan() => self.integrations = Integrations::One,
                    "moi" => {
                        self.integrations = match self.integrations {
                            Integrations::Selected(_) => Integrations::Selected(x),
                            _ => Integrations::Poisson(x),
                        }
                    }
                    "selected" if x == 0.0 || x == 1.0 => {
                        self.integrations = match self.integrations {
                            // One construct a cell is selected already.
                            Integrations::One => Integrations::One,
                            Integrations::Poisson(moi) | Integrations::Selected(moi) if x == 1.0 => {
                                Integrations::Selected(moi)
                            }
                            Integrations::Poisson(moi) | Integrations::Selected(moi) => Integrations::Poisson(moi),
                        }
                    }
                    "share_empty" => self.share_empty = x,
                    "share_doublet" => self.share_doublet = x,
                    "min_depth" => self.min_depth = whole(x, 0.0)? as u64,
                    "n_empty_droplets" => self.n_empty_droplets = whole(x, 0.0)?,
                    "droplet_ambient" => self.droplet_ambient = x,
                    "hopping_burst" => self.hopping_burst = x,
                    "capture_gamma" if x == 0.0 || x == 1.0 => self.capture_gamma = x == 1.0,
                    "ambient_library" if x == 0.0 || x == 1.0 => self.ambient_library = x == 1.0,
                    "signal_mean" => self.signal_mean = x,
                    "signal_size" => self.signal_size = x,
                    "efficiency_spread" => self.efficiency_spread = x,
                    "capture_spread" => self.capture_spread = x,
                    "ambient_mean" => self.ambient_mean = x,
                    "ambient_size" => self.ambient_size = x,
                    "ambient_cell_size" => self.ambient_cell_size = x,
                    "ambient_guide_spread" => self.ambient_guide_spread = x,
                    "hopping" => self.hopping = x,
                    "abundance_spread" => self.abundance_spread = x,
                    "recombined" => self.recombined = x,
                    "dual" if x == 0.0 || x == 1.0 => self.dual = x == 1.0,
                    _ => return Err(Error::Argument(format!("`{name}` is {x}; it must be TRUE or FALSE."))),
                }
            }
        }
        Ok(())
    }

    /// A single factor counts for all lanes.
    fn lanes(&self) -> usize {
        self.lane_depth.len().max(self.lane_ambient.len()).max(self.lane_cells.len())
    }

    /// Where each lane ends among `n` barcodes.
    fn lane_ends(&self, n: usize) -> Vec<usize> {
        let size = |lane: usize| self.lane_cells[lane % self.lane_cells.len()];
        let all: f64 = (0..self.lanes()).map(size).sum();
        let mut sum = 0.0;
        let mut ends: Vec<usize> = (0..self.lanes())
            .map(|lane| {
                sum += size(lane);
                (sum * n as f64 / all).ceil() as usize
            })
            .collect();
        // Rounding must not lose the last barcode.
        if let Some(last) = ends.last_mut() {
            *last = n;
        }
        ends
    }

    fn check(&self) -> Result<()> {
        let fail =
            |name: &str, x: f64, rule: &str| Err(Error::Argument(format!("`{name}` is {x}; it must be {rule}.")));
        for (name, x) in [("n_cells", self.n_cells), ("n_guides", self.n_guides)] {
            if x == 0 || x > i32::MAX as usize {
                return fail(name, x as f64, "a whole number from 1 to 2147483647");
            }
        }
        if self.n_cells + self.n_empty_droplets > i32::MAX as usize {
            return fail("n_empty_droplets", self.n_empty_droplets as f64, "at most 2147483647 with the cells");
        }
        for (name, x) in
            [("share_empty", self.share_empty), ("share_doublet", self.share_doublet), ("recombined", self.recombined)]
        {
            if !(0.0..=1.0).contains(&x) {
                return fail(name, x, "a share from 0 to 1");
            }
        }
        if !(0.0..1.0).contains(&self.hopping) {
            return fail("hopping", self.hopping, "a share from 0 to below 1");
        }
        if !(0.0..=1e3).contains(&self.hopping_burst) {
            return fail("hopping_burst", self.hopping_burst, "a mean from 0 to 1000");
        }
        if !(0.0..=1e3).contains(&self.droplet_ambient) {
            return fail("droplet_ambient", self.droplet_ambient, "a factor from 0 to 1000");
        }
        if let Integrations::Poisson(moi) | Integrations::Selected(moi) = self.integrations {
            if !(0.0..=1e4).contains(&moi) {
                return fail("moi", moi, "a mean from 0 to 10000, or NA for exactly one construct a cell");
            }
            if moi == 0.0 && matches!(self.integrations, Integrations::Selected(_)) {
                return fail("moi", moi, "above 0 when cells are selected for a construct (`selected`)");
            }
        }
        for (name, x) in [("signal_mean", self.signal_mean), ("ambient_mean", self.ambient_mean)] {
            if !(0.0..=1e6).contains(&x) {
                return fail(name, x, "a mean from 0 to 1000000");
            }
        }
        for (name, x) in [
            ("signal_size", self.signal_size),
            ("ambient_size", self.ambient_size),
            ("ambient_cell_size", self.ambient_cell_size),
        ] {
            if x.is_nan() || x < 1e-3 {
                return fail(name, x, "at least 0.001; Inf is the Poisson limit");
            }
        }
        for (name, x) in [
            ("efficiency_spread", self.efficiency_spread),
            ("capture_spread", self.capture_spread),
            ("ambient_guide_spread", self.ambient_guide_spread),
            ("abundance_spread", self.abundance_spread),
        ] {
            if !(0.0..=5.0).contains(&x) {
                return fail(name, x, "a standard deviation on the log scale, from 0 to 5");
            }
        }
        let lengths =
            [("lane_cells", &self.lane_cells), ("lane_depth", &self.lane_depth), ("lane_ambient", &self.lane_ambient)];
        if lengths.iter().any(|(_, values)| ![1, self.lanes()].contains(&values.len())) {
            let has: Vec<String> =
                lengths.iter().map(|(name, values)| format!("`{name}` has {}", values.len())).collect();
            return Err(Error::Argument(format!(
                "The numbers of lanes differ: {}.\n  Give each one value per lane, or one for all.",
                has.join(", ")
            )));
        }
        for &x in &self.lane_cells {
            if !(x > 0.0 && x <= 1e9) {
                return fail("lane_cells", x, "a relative number of cells, above 0 and at most 1e9");
            }
        }
        for (name, lanes) in [("lane_depth", &self.lane_depth), ("lane_ambient", &self.lane_ambient)] {
            for &x in lanes {
                if !(0.0..=1e3).contains(&x) {
                    return fail(name, x, "a factor from 0 to 1000");
                }
            }
        }
        if self.dual && (self.n_guides % 2 == 1) {
            return fail("n_guides", self.n_guides as f64, "even when a construct has two guides (`dual`)");
        }
        if self.dual && self.n_guides == 2 && self.recombined > 0.0 {
            return fail("recombined", self.recombined, "0 when there is one construct only");
        }
        Ok(())
    }
}

/// What was drawn for one guide.
#[derive(Debug, Clone, PartialEq)]
pub struct GuideTruth {
    /// 0-based construct.
    pub construct: u32,
    /// Share of integrations that bring the construct.
    pub abundance: f64,
    /// Factor on the signal.
    pub efficiency: f64,
    /// Share of ambient UMIs.
    pub ambient_share: f64,
    /// Share of chimeric UMIs.
    pub library_share: f64,
    /// Probability that a cell carries the guide.
    pub prior: f64,
}

/// What was drawn for one cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CellTruth {
    pub lane: u32,
    /// Factor on the signal: lane depth x capture; 0 in an empty droplet.
    pub capture: f64,
    /// Expected ambient UMIs.
    pub ambient: f64,
    /// Expected chimeric UMIs.
    pub chimeric: f64,
}

/// Counts (cells x guides, compressed rows, as in [`crate::io::GuideFile`]) and the truth behind them.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulation {
    pub indptr: Vec<i32>,
    pub guide: Vec<i32>,
    pub count: Vec<f64>,
    /// For every stored count, the posterior probability that the cell carries the guide, to an observer who knows
    /// every parameter, capture and exposure, and which barcodes are cells, but not who carries what. Pairs are judged one
    /// by one: that a cell has exactly one construct, or that two guides share one, is not used.
    ///
    /// Chimeric UMIs: the observer also knows the other guides' signal and ambient UMIs of the cell, which set how many
    /// chimeras to expect besides those of the guide's own. Selection by `min_depth`: given the count and the rest of the
    /// cell, the cell passes or not whoever carries the guide, so selection changes no posterior, though the share of
    /// carriers among the selected cells is not `prior`.
    pub oracle: Vec<f64>,
    /// (cell, guide) pairs, sorted.
    pub truth: Vec<(u32, u32)>,
    pub cells: Vec<CellTruth>,
    pub guides: Vec<GuideTruth>,
}

/// Pairs right, wrong and missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairScore {
    pub right: usize,
    pub wrong: usize,
    pub missed: usize,
}

impl PairScore {
    pub fn f1(&self) -> f64 {
        let twice = 2 * self.right;
        twice as f64 / (twice + self.wrong + self.missed).max(1) as f64
    }
}

impl Simulation {
    /// Judges the calls `called(k)` of every stored count k. True pairs without a count are missed by any caller.
    pub fn judge(&self, called: impl Fn(usize) -> bool) -> PairScore {
        let mut score = PairScore { right: 0, wrong: 0, missed: self.truth.len() };
        let mut truth = self.truth.iter().peekable();
        for cell in 0..self.cells.len() {
            for k in self.indptr[cell] as usize..self.indptr[cell + 1] as usize {
                let pair = (cell as u32, self.guide[k] as u32);
                while truth.next_if(|&&t| t < pair).is_some() {}
                if called(k) {
                    if truth.peek() == Some(&&pair) {
                        score.right += 1;
                        score.missed -= 1;
                    } else {
                        score.wrong += 1;
                    }
                }
            }
        }
        score
    }

    /// The posterior from which on the observer's calls have the highest F1, and those calls. It is about half of that F1
    /// (Lipton, Elkan and Naryanaswamy 2014): below 0.5 where pairs are missed, far below where most pairs are carried.
    pub fn best_cut(&self) -> (f64, PairScore) {
        let mut stored = Vec::with_capacity(self.oracle.len());
        let mut truth = self.truth.iter().peekable();
        for cell in 0..self.cells.len() {
            for k in self.indptr[cell] as usize..self.indptr[cell + 1] as usize {
                let pair = (cell as u32, self.guide[k] as u32);
                while truth.next_if(|&&t| t < pair).is_some() {}
                stored.push((self.oracle[k], truth.peek() == Some(&&pair)));
            }
        }
        stored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut score = PairScore { right: 0, wrong: 0, missed: self.truth.len() };
        let mut best = (0.5, score);
        for tied in stored.chunk_by(|a, b| a.0 == b.0) {
            let right = tied.iter().filter(|pair| pair.1).count();
            score.right += right;
            score.missed -= right;
            score.wrong += tied.len() - right;
            if score.f1() > best.1.f1() {
                best = (tied[0].0, score);
            }
        }
        best
    }

    /// The highest F1 of the observer's calls.
    pub fn ceiling(&self) -> f64 {
        self.best_cut().1.f1()
    }
}

/// Draws a screen on the current thread pool. Same screen and seed, same result, on any number of threads.
pub fn simulate(screen: &Screen, seed: u64, progress: &Progress) -> Result<Simulation> {
    screen.check()?;
    let guides = draw_guides(screen, seed);
    let library = library(screen, &guides);
    let barcodes = screen.n_cells + screen.n_empty_droplets;
    let blocks = progress
        .map(barcodes.div_ceil(BLOCK), |b| library.draw_block(seed, b * BLOCK..barcodes.min((b + 1) * BLOCK)))?;
    let drawn: f64 = blocks.iter().map(|b| b.draws as f64).sum();
    if blocks.iter().any(|b| b.gave_up) {
        let passed: f64 = blocks.iter().map(|b| b.passed as f64).sum();
        return Err(Error::Argument(format!(
            "`min_depth` is {}, which only {passed} of {drawn} cells reached.\n  Set a lower `min_depth`, or a higher \
             `signal_mean` or `ambient_mean`.",
            screen.min_depth
        )));
    }

    let stored: usize = blocks.iter().map(|b| b.guide.len()).sum();
    if stored > i32::MAX as usize {
        return Err(Error::Argument(format!(
            "The screen has {stored} non-zero counts, more than a sparse matrix of R can hold (2147483647). \
             Simulate fewer cells (`n_cells`) or fewer ambient UMIs (`ambient_mean`)."
        )));
    }
    let mut out = Simulation {
        indptr: Vec::with_capacity(barcodes + 1),
        guide: Vec::with_capacity(stored),
        count: Vec::with_capacity(stored),
        oracle: Vec::with_capacity(stored),
        truth: Vec::with_capacity(blocks.iter().map(|b| b.truth.len()).sum()),
        cells: Vec::with_capacity(barcodes),
        guides: Vec::new(),
    };
    out.indptr.push(0);
    for block in blocks {
        let before = out.guide.len() as i32;
        out.indptr.extend(block.ends.iter().map(|&end| before + end as i32));
        out.guide.extend(block.guide);
        out.count.extend(block.count);
        out.oracle.extend(block.oracle);
        out.truth.extend(block.truth);
        out.cells.extend(block.cells);
    }
    out.guides = guides;
    Ok(out)
}

/// Cells drawn together; only a matter of speed.
const BLOCK: usize = 2048;

/// Cells that are drawn for one that has `min_depth`, at most and on average over a block, which may be short.
const DRAWS: usize = 1000;
const SHORT_BLOCK: usize = 20;

/// Guides 2k and 2k + 1 are the first and second of construct k when constructs are dual.
fn draw_guides(screen: &Screen, seed: u64) -> Vec<GuideTruth> {
    let per_construct = if screen.dual { 2 } else { 1 };
    let mut rng = Rng::new(seed, u64::MAX);
    let mut abundance: Vec<f64> =
        (0..screen.n_guides / per_construct).map(|_| rng.log_normal(screen.abundance_spread)).collect();
    normalise(&mut abundance);
    let efficiency: Vec<f64> = (0..screen.n_guides).map(|_| rng.log_normal(screen.efficiency_spread)).collect();
    let library_weight = |g: usize| abundance[g / per_construct] * efficiency[g];
    let mut ambient: Vec<f64> = (0..screen.n_guides)
        .map(|g| {
            let weight = if screen.ambient_library { library_weight(g) } else { abundance[g / per_construct] };
            weight * rng.log_normal(screen.ambient_guide_spread)
        })
        .collect();
    normalise(&mut ambient);
    let mut library: Vec<f64> = (0..screen.n_guides).map(library_weight).collect();
    normalise(&mut library);

    let odds: f64 = abundance.iter().map(|a| a / (1.0 - a)).sum();
    (0..screen.n_guides)
        .map(|g| {
            let a = abundance[g / per_construct];
            let share = if screen.dual && g % 2 == 1 && screen.recombined > 0.0 {
                // The second guide comes with its own construct, or with another one that recombined.
                (1.0 - screen.recombined) * a + screen.recombined * a * (odds - a / (1.0 - a))
            } else {
                a
            };
            let in_cell = match screen.integrations {
                Integrations::One => share,
                Integrations::Poisson(moi) => -(-moi * share).exp_m1(),
                Integrations::Selected(moi) => (-moi * share).exp_m1() / (-moi).exp_m1(),
            };
            let one = (1.0 - screen.share_empty) * in_cell;
            let two = one * (2.0 - one);
            GuideTruth {
                construct: (g / per_construct) as u32,
                abundance: a,
                efficiency: efficiency[g],
                ambient_share: ambient[g],
                library_share: library[g],
                prior: (1.0 - screen.share_doublet) * one + screen.share_doublet * two,
            }
        })
        .collect()
}

fn library<'a>(screen: &'a Screen, guides: &'a [GuideTruth]) -> Library<'a> {
    Library {
        screen,
        construct: Alias::new(&construct_shares(guides, screen.dual)),
        ambient: Alias::new(&guides.iter().map(|g| g.ambient_share).collect::<Vec<_>>()),
        chimeric: Alias::new(&guides.iter().map(|g| g.library_share).collect::<Vec<_>>()),
        cell_lanes: screen.lane_ends(screen.n_cells),
        droplet_lanes: screen.lane_ends(screen.n_empty_droplets),
        guides,
    }
}

fn construct_shares(guides: &[GuideTruth], dual: bool) -> Vec<f64> {
    guides.iter().step_by(if dual { 2 } else { 1 }).map(|g| g.abundance).collect()
}

fn flag(x: bool) -> f64 {
    f64::from(u8::from(x))
}

fn normalise(x: &mut [f64]) {
    let sum: f64 = x.iter().sum();
    x.iter_mut().for_each(|v| *v /= sum);
}

struct Library<'a> {
    screen: &'a Screen,
    guides: &'a [GuideTruth],
    construct: Alias,
    ambient: Alias,
    chimeric: Alias,
    cell_lanes: Vec<usize>,
    droplet_lanes: Vec<usize>,
}

#[derive(Default)]
struct Block {
    ends: Vec<usize>,
    guide: Vec<i32>,
    count: Vec<f64>,
    oracle: Vec<f64>,
    truth: Vec<(u32, u32)>,
    cells: Vec<CellTruth>,
    /// Cells that were drawn, those that had `min_depth`, and whether that was too few of them.
    draws: usize,
    passed: usize,
    gave_up: bool,
}

/// UMIs of a guide from one source.
struct Umis {
    guide: u32,
    count: u64,
    chimeric: bool,
}

impl Library<'_> {
    fn draw_block(&self, seed: u64, barcodes: Range<usize>) -> Block {
        let screen = self.screen;
        let mut block = Block::default();
        let mut carried: Vec<u32> = Vec::new();
        let mut umis: Vec<Umis> = Vec::new();
        let mut masses = Vec::new();
        let most_draws = DRAWS * (barcodes.len() + SHORT_BLOCK);
        for barcode in barcodes {
            let mut rng = Rng::new(seed, barcode as u64);
            let truth = if barcode < screen.n_cells {
                loop {
                    let truth = self.draw_cell(&mut rng, barcode, &mut carried, &mut umis);
                    block.draws += 1;
                    if screen.min_depth == 0 || umis.iter().map(|u| u.count).sum::<u64>() >= screen.min_depth {
                        block.passed += 1;
                        break truth;
                    }
                    if block.draws == most_draws {
                        block.gave_up = true;
                        return block;
                    }
                }
            } else {
                self.draw_droplet(&mut rng, barcode - screen.n_cells, &mut carried, &mut umis)
            };
            block.truth.extend(carried.iter().map(|&g| (barcode as u32, g)));
            umis.sort_unstable_by_key(|u| u.guide);
            let kept: u64 = umis.iter().filter(|u| !u.chimeric).map(|u| u.count).sum();
            for of_guide in umis.chunk_by(|a, b| a.guide == b.guide) {
                let y: u64 = of_guide.iter().map(|u| u.count).sum();
                if y == 0 {
                    continue;
                }
                let g = of_guide[0].guide;
                let own: u64 = of_guide.iter().filter(|u| !u.chimeric).map(|u| u.count).sum();
                block.guide.push(g as i32);
                block.count.push(y as f64);
                block.oracle.push(if barcode < screen.n_cells {
                    self.posterior(&truth, g as usize, y, kept - own, &mut masses)
                } else {
                    0.0
                });
            }
            block.ends.push(block.guide.len());
            block.cells.push(truth);
        }
        block
    }

    /// Which guides a cell carries, and its UMIs.
    fn draw_cell(&self, rng: &mut Rng, cell: usize, carried: &mut Vec<u32>, umis: &mut Vec<Umis>) -> CellTruth {
        let screen = self.screen;
        let lane = self.cell_lanes.partition_point(|&end| end <= cell);
        let depth = screen.lane_depth[lane % screen.lane_depth.len()];
        let capture = depth * self.draw_capture(rng);
        let ambient = self.draw_exposure(rng, lane);
        carried.clear();
        for _ in 0..1 + usize::from(rng.uniform() < screen.share_doublet) {
            self.infect(rng, carried);
        }
        carried.sort_unstable();
        carried.dedup();

        umis.clear();
        for &g in carried.iter() {
            let count = rng.negative_binomial(self.signal(capture, g as usize), screen.signal_size);
            umis.push(Umis { guide: g, count, chimeric: false });
        }
        self.draw_ambient(rng, ambient, umis);
        let chimeric = self.draw_chimeric(rng, umis);
        CellTruth { lane: lane as u32, capture, ambient, chimeric }
    }

    fn draw_droplet(&self, rng: &mut Rng, droplet: usize, carried: &mut Vec<u32>, umis: &mut Vec<Umis>) -> CellTruth {
        let lane = self.droplet_lanes.partition_point(|&end| end <= droplet);
        let ambient = self.screen.droplet_ambient * self.draw_exposure(rng, lane);
        carried.clear();
        umis.clear();
        self.draw_ambient(rng, ambient, umis);
        let chimeric = self.draw_chimeric(rng, umis);
        CellTruth { lane: lane as u32, capture: 0.0, ambient, chimeric }
    }

    fn draw_capture(&self, rng: &mut Rng) -> f64 {
        let spread = self.screen.capture_spread;
        if self.screen.capture_gamma && spread > 0.0 {
            let shape = 1.0 / (spread * spread).exp_m1();
            rng.gamma(shape) / shape
        } else {
            rng.log_normal(spread)
        }
    }

    /// Expected ambient UMIs of a cell.
    fn draw_exposure(&self, rng: &mut Rng, lane: usize) -> f64 {
        let screen = self.screen;
        let exposure = if screen.ambient_cell_size.is_finite() {
            rng.gamma(screen.ambient_cell_size) / screen.ambient_cell_size
        } else {
            1.0
        };
        (1.0 - screen.hopping)
            * screen.ambient_mean
            * screen.lane_depth[lane % screen.lane_depth.len()]
            * screen.lane_ambient[lane % screen.lane_ambient.len()]
            * exposure
    }

    /// The guides of one cell, added to `carried`.
    fn infect(&self, rng: &mut Rng, carried: &mut Vec<u32>) {
        if rng.uniform() < self.screen.share_empty {
            return;
        }
        let n = match self.screen.integrations {
            Integrations::One => 1,
            Integrations::Poisson(moi) => rng.poisson(moi),
            Integrations::Selected(moi) => rng.poisson_above_zero(moi),
        };
        for _ in 0..n {
            let first = self.construct.draw(rng);
            if !self.screen.dual {
                carried.push(first as u32);
                continue;
            }
            let mut second = first;
            if rng.uniform() < self.screen.recombined {
                while second == first {
                    second = self.construct.draw(rng);
                }
            }
            carried.push(2 * first as u32);
            carried.push(2 * second as u32 + 1);
        }
    }

    fn signal(&self, capture: f64, g: usize) -> f64 {
        (1.0 - self.screen.hopping) * self.screen.signal_mean * capture * self.guides[g].efficiency
    }

    /// Ambient UMIs of a cell with `total` expected. A negative binomial with mean m and size s is a Poisson number,
    /// mean s ln(1 + m/s) <= m, of clusters of logarithmic size: so draw Poisson(total) places, and thin them.
    fn draw_ambient(&self, rng: &mut Rng, total: f64, umis: &mut Vec<Umis>) {
        let size = self.screen.ambient_size;
        for _ in 0..rng.poisson(total) {
            let guide = self.ambient.draw(rng) as u32;
            if size.is_infinite() {
                umis.push(Umis { guide, count: 1, chimeric: false });
                continue;
            }
            let mean = total * self.guides[guide as usize].ambient_share;
            if rng.uniform() * mean < size * (mean / size).ln_1p() {
                let count = rng.logarithmic(mean / (size + mean));
                umis.push(Umis { guide, count, chimeric: false });
            }
        }
    }

    /// Chimeric UMIs of a cell with these others; returns how many were expected. In bursts they are again clusters of
    /// logarithmic size, now of the same law for all guides.
    fn draw_chimeric(&self, rng: &mut Rng, umis: &mut Vec<Umis>) -> f64 {
        let kept: u64 = umis.iter().map(|u| u.count).sum();
        let expected = self.chimeric_rate() * kept as f64;
        let burst = self.screen.hopping_burst;
        let places = if burst > 0.0 { expected * burst.ln_1p() / burst } else { expected };
        for _ in 0..rng.poisson(places) {
            let guide = self.chimeric.draw(rng) as u32;
            let count = if burst > 0.0 { rng.logarithmic(burst / (1.0 + burst)) } else { 1 };
            umis.push(Umis { guide, count, chimeric: true });
        }
        expected
    }

    /// Expected chimeric UMIs for each UMI that is none.
    fn chimeric_rate(&self) -> f64 {
        self.screen.hopping / (1.0 - self.screen.hopping)
    }

    /// Bayes' rule with the densities that drew the count. `rest` is the signal and ambient UMIs of the other guides.
    fn posterior(&self, cell: &CellTruth, g: usize, y: u64, rest: u64, terms: &mut Vec<f64>) -> f64 {
        let guide = &self.guides[g];
        let signal = self.signal(cell.capture, g);
        let ambient = cell.ambient * guide.ambient_share;
        let ln_prior = (guide.prior / (1.0 - guide.prior)).ln();
        let log_odds = if self.screen.hopping == 0.0 {
            let background = Background { mean: ambient, size: self.screen.ambient_size };
            ln_prior + background.ln_mass_with(signal, self.screen.signal_size, y, terms) - background.ln_mass(y)
        } else {
            let pair = Pair {
                ambient,
                ambient_size: self.screen.ambient_size,
                signal,
                signal_size: self.screen.signal_size,
                rest,
                rate: self.chimeric_rate() * guide.library_share,
                burst: self.screen.hopping_burst,
            };
            pair.log_odds(ln_prior, y)
        };
        if log_odds.is_nan() {
            // Neither source can make the count: only with a mean of zero on both sides.
            return guide.prior;
        }
        1.0 / (1.0 + (-log_odds).exp())
    }
}

/// The count without signal, where there are no chimeras.
struct Background {
    mean: f64,
    size: f64,
}

/// A mass below this share of the largest cannot move a posterior.
const NEGLIGIBLE: f64 = 1e-14;

impl Background {
    fn ln_mass(&self, y: u64) -> f64 {
        ln_negative_binomial(y, self.mean, self.size)
    }

    /// The count with a signal added: sums over the background's share of it, until the background has no mass left.
    fn ln_mass_with(&self, signal: f64, size: f64, y: u64, terms: &mut Vec<f64>) -> f64 {
        terms.clear();
        let mut top = f64::NEG_INFINITY;
        for j in 0..=y {
            let background = self.ln_mass(j);
            let term = background + ln_negative_binomial(y - j, signal, size);
            terms.push(term);
            top = top.max(term);
            // Past the mean of the background both factors' product falls, unless the signal still rises towards its
            // bulk below y; so look at the background alone, relative to the best term.
            if j as f64 > self.mean && background < top + NEGLIGIBLE.ln() {
                break;
            }
        }
        ln_sum_exp(terms)
    }
}

/// A count of three sources. Chimeras come of the guide's own UMIs, too, so their mean hangs on the sum of the other two.
struct Pair {
    ambient: f64,
    ambient_size: f64,
    signal: f64,
    signal_size: f64,
    /// Signal and ambient UMIs of the cell's other guides.
    rest: u64,
    /// Chimeric UMIs of the guide expected for each UMI of the cell that is none.
    rate: f64,
    burst: f64,
}

/// Log-odds beyond which 1 / (1 + exp(-x)) is 1.
const CERTAIN: f64 = 40.0;

impl Pair {
    /// `n` chimeric UMIs beside `own` that are none.
    fn ln_chimeric(&self, n: u64, own: u64) -> f64 {
        let mean = self.rate * (self.rest + own) as f64;
        let size = if self.burst > 0.0 { mean / self.burst } else { f64::INFINITY };
        ln_negative_binomial(n, mean, size)
    }

    fn log_odds(&self, ln_prior: f64, y: u64) -> f64 {
        let n = y as usize + 1;
        let ambient: Vec<f64> = (0..=y).map(|k| ln_negative_binomial(k, self.ambient, self.ambient_size)).collect();
        let signal: Vec<f64> = (0..=y).map(|k| ln_negative_binomial(k, self.signal, self.signal_size)).collect();
        let chimeric: Vec<f64> = (0..=y).map(|own| self.ln_chimeric(y - own, own)).collect();
        let terms: Vec<f64> = (0..n).map(|own| ambient[own] + chimeric[own]).collect();
        let without = ln_sum_exp(&terms);
        // The best single term with signal, with the commonest ambient count, is less than their sum.
        let common = (0..n).max_by(|&a, &b| ambient[a].total_cmp(&ambient[b])).unwrap_or(0);
        let least = (common..n)
            .map(|own| ambient[common] + signal[own - common] + chimeric[own])
            .fold(f64::NEG_INFINITY, f64::max);
        if ln_prior + least - without > CERTAIN {
            return f64::INFINITY;
        }
        let mut of_own = Vec::with_capacity(n);
        let mut with = Vec::with_capacity(n);
        let mut top = least;
        for own in (0..n).rev() {
            // A sum of masses is at most 1, so its chimeras alone can tell that a term is negligible.
            if chimeric[own] < top + NEGLIGIBLE.ln() - (n as f64).ln() {
                continue;
            }
            of_own.clear();
            of_own.extend((0..=own).map(|k| ambient[k] + signal[own - k]));
            let term = ln_sum_exp(&of_own) + chimeric[own];
            top = top.max(term);
            with.push(term);
        }
        ln_prior + ln_sum_exp(&with) - without
    }
}

fn ln_poisson(y: u64, mean: f64) -> f64 {
    if mean == 0.0 {
        return if y == 0 { 0.0 } else { f64::NEG_INFINITY };
    }
    let y = y as f64;
    y * mean.ln() - mean - ln_gamma(y + 1.0)
}

fn ln_negative_binomial(y: u64, mean: f64, size: f64) -> f64 {
    if mean == 0.0 || size.is_infinite() {
        return ln_poisson(y, mean);
    }
    let y = y as f64;
    ln_gamma(y + size) - ln_gamma(size) - ln_gamma(y + 1.0) - size * (mean / size).ln_1p()
        + y * (mean / (size + mean)).ln()
}

/// xoshiro256++ (Blackman and Vigna 2021), seeded by splitmix64 from a seed and a stream.
struct Rng {
    state: [u64; 4],
    spare: Option<f64>,
}

impl Rng {
    fn new(seed: u64, stream: u64) -> Self {
        let mut x = seed;
        let mut y = stream ^ split_mix(&mut x);
        Rng { state: std::array::from_fn(|_| split_mix(&mut y)), spare: None }
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// In (0, 1): never 0, so its logarithm is finite.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64)
    }

    /// Standard normal, by the polar method.
    fn normal(&mut self) -> f64 {
        if let Some(z) = self.spare.take() {
            return z;
        }
        loop {
            let u = 2.0 * self.uniform() - 1.0;
            let v = 2.0 * self.uniform() - 1.0;
            let s = u * u + v * v;
            if s < 1.0 && s > 0.0 {
                let f = (-2.0 * s.ln() / s).sqrt();
                self.spare = Some(v * f);
                return u * f;
            }
        }
    }

    /// Log-normal with mean 1.
    fn log_normal(&mut self, sd: f64) -> f64 {
        if sd == 0.0 {
            return 1.0;
        }
        (sd * self.normal() - 0.5 * sd * sd).exp()
    }

    /// Gamma with scale 1 (Marsaglia and Tsang 2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = self.uniform().powf(1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let z = self.normal();
            let v = (1.0 + c * z).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * z * z + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean < 10.0 {
            // As many unit exponentials as fit, as a product of uniforms.
            let stop = (-mean).exp();
            let mut product = self.uniform();
            let mut n = 0;
            while product > stop {
                product *= self.uniform();
                n += 1;
            }
            return n;
        }
        // Transformed rejection (PTRS; Hoermann 1993).
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.02483 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let limit = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let u = self.uniform() - 0.5;
            let v = self.uniform();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + mean + 0.43).floor();
            if us >= 0.07 && v <= limit {
                return k as u64;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            if (v * inverse_alpha / (a / (us * us) + b)).ln() <= k * mean.ln() - mean - ln_gamma(k + 1.0) {
                return k as u64;
            }
        }
    }

    /// A Poisson number given that it is not zero.
    fn poisson_above_zero(&mut self, mean: f64) -> u64 {
        // The first event of a unit-rate process, given that one falls before `mean`; the rest is Poisson again.
        let first = -(self.uniform() * (-mean).exp_m1()).ln_1p();
        1 + self.poisson(mean - first)
    }

    fn negative_binomial(&mut self, mean: f64, size: f64) -> u64 {
        if size.is_infinite() {
            return self.poisson(mean);
        }
        let rate = self.gamma(size) * mean / size;
        self.poisson(rate)
    }

    /// P(k) = -p^k / (k ln(1 - p)), k >= 1 (Kemp 1981).
    fn logarithmic(&mut self, p: f64) -> u64 {
        let v = self.uniform();
        if v >= p {
            return 1;
        }
        let q = -((-p).ln_1p() * self.uniform()).exp_m1();
        if v <= q * q {
            (1.0 + v.ln() / q.ln()).floor().max(1.0) as u64
        } else if v <= q {
            2
        } else {
            1
        }
    }
}

fn split_mix(x: &mut u64) -> u64 {
    *x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *x;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Draws an index in proportion to its weight in constant time (Vose 1991).
struct Alias {
    keep: Vec<f64>,
    other: Vec<u32>,
}

impl Alias {
    fn new(weights: &[f64]) -> Self {
        let n = weights.len();
        let scale = n as f64 / weights.iter().sum::<f64>();
        let mut keep: Vec<f64> = weights.iter().map(|w| w * scale).collect();
        let mut other: Vec<u32> = (0..n as u32).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| keep[i] < 1.0);
        while let (Some(&s), Some(&l)) = (small.last(), large.last()) {
            small.pop();
            other[s] = l as u32;
            keep[l] -= 1.0 - keep[s];
            if keep[l] < 1.0 {
                large.pop();
                small.push(l);
            }
        }
        // What is left differs from 1 by rounding only.
        for i in small.into_iter().chain(large) {
            keep[i] = 1.0;
        }
        Alias { keep, other }
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let x = rng.uniform() * self.keep.len() as f64;
        let i = (x as usize).min(self.keep.len() - 1);
        if x - (i as f64) < self.keep[i] {
            i
        } else {
            self.other[i] as usize
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::on_threads;

    fn draw(screen: &Screen, seed: u64, threads: usize) -> Simulation {
        on_threads(threads, || simulate(screen, seed, &Progress::default())).unwrap()
    }

    fn sized(name: &str, n_cells: usize, n_guides: usize) -> Screen {
        Screen { n_cells, n_guides, ..Screen::named(name).unwrap() }
    }

    /// Mean and variance of 200,000 draws are those of the law, to five standard errors of the mean.
    fn check_moments(what: &str, mean: f64, variance: f64, mut sample: impl FnMut(&mut Rng) -> f64) {
        let n = 200_000;
        let mut rng = Rng::new(11, 0);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = sample(&mut rng) - mean;
            sum += x;
            squares += x * x;
        }
        let off = sum / n as f64;
        assert!(off.abs() < 5.0 * (variance / n as f64).sqrt() + 1e-12, "{what}: mean off by {off}");
        let spread = squares / n as f64;
        assert!((spread - variance).abs() < 0.05 * variance + 1e-12, "{what}: variance {spread}, not {variance}");
    }

    #[test]
    fn samplers_have_the_moments_of_their_laws() {
        check_moments("uniform", 0.5, 1.0 / 12.0, |r| r.uniform());
        check_moments("normal", 0.0, 1.0, |r| r.normal());
        check_moments("log-normal", 1.0, (0.25f64).exp_m1(), |r| r.log_normal(0.5));
        for shape in [0.3, 1.0, 7.0] {
            check_moments("gamma", shape, shape, |r| r.gamma(shape));
        }
        for mean in [0.0, 0.3, 9.9, 10.0, 37.5, 2500.0] {
            check_moments("poisson", mean, mean, |r| r.poisson(mean) as f64);
        }
        check_moments("negative binomial", 20.0, 20.0 + 200.0, |r| r.negative_binomial(20.0, 2.0) as f64);
        let p: f64 = 0.7;
        let a = -1.0 / (-p).ln_1p();
        let mean = a * p / (1.0 - p);
        check_moments("logarithmic", mean, a * p * (1.0 - a * p) / (1.0 - p).powi(2), |r| r.logarithmic(p) as f64);
        let moi: f64 = 0.8;
        let mean = moi / -(-moi).exp_m1();
        check_moments("above zero", mean, mean * (1.0 + moi - mean), |r| r.poisson_above_zero(moi) as f64);
    }

    #[test]
    fn alias_draws_in_proportion() {
        let weights = [0.5, 0.0, 3.0, 1.5];
        let alias = Alias::new(&weights);
        let mut rng = Rng::new(3, 0);
        let mut seen = [0.0; 4];
        for _ in 0..100_000 {
            seen[alias.draw(&mut rng)] += 1.0 / 100_000.0;
        }
        for (s, w) in seen.iter().zip(weights) {
            assert!((s - w / 5.0).abs() < 0.01, "{seen:?}");
        }
        assert_eq!(seen[1], 0.0);
    }

    #[test]
    fn densities_add_up_and_match_a_plain_convolution() {
        let (signal, size) = (9.0, 1.3);
        let mut scratch = Vec::new();
        for background in [
            Background { mean: 0.4, size: f64::INFINITY },
            Background { mean: 0.4, size: 0.2 },
            Background { mean: 1.4, size: 0.7 },
            Background { mean: 0.0, size: 0.7 },
        ] {
            let (mut total0, mut total1) = (0.0, 0.0);
            for y in 0..400 {
                let with: f64 =
                    (0..=y).map(|j| (background.ln_mass(j) + ln_negative_binomial(y - j, signal, size)).exp()).sum();
                let found = background.ln_mass_with(signal, size, y, &mut scratch).exp();
                assert!((found - with).abs() <= 1e-9 * with, "{y}: {found} {with}");
                total0 += background.ln_mass(y).exp();
                total1 += found;
            }
            assert!((total0 - 1.0).abs() < 1e-9 && (total1 - 1.0).abs() < 1e-9, "{total0} {total1}");
        }
    }

    #[test]
    fn odds_with_chimeras_are_those_of_the_plain_sums() {
        let mut rng = Rng::new(5, 0);
        for round in 0..200 {
            let pair = Pair {
                ambient: [0.0, 0.2, 3.0][round % 3] * rng.uniform(),
                ambient_size: [0.3, 2.0, f64::INFINITY][round / 3 % 3],
                signal: 30.0 * rng.uniform(),
                signal_size: [0.5, 5.0, f64::INFINITY][round / 9 % 3],
                rest: (100.0 * rng.uniform()) as u64,
                rate: 0.2 * rng.uniform(),
                burst: [0.0, 1.0, 6.0][round / 27 % 3],
            };
            let nb = |y: u64, mean: f64, size: f64| ln_negative_binomial(y, mean, size).exp();
            for y in [1, 2, 5, 17, 60] {
                let (mut without, mut with) = (0.0, 0.0);
                for own in 0..=y {
                    let chimeric = pair.ln_chimeric(y - own, own).exp();
                    without += nb(own, pair.ambient, pair.ambient_size) * chimeric;
                    with += chimeric
                        * (0..=own)
                            .map(|k| {
                                nb(k, pair.ambient, pair.ambient_size) * nb(own - k, pair.signal, pair.signal_size)
                            })
                            .sum::<f64>();
                }
                let (odds, plain) = (pair.log_odds(0.3, y), 0.3 + f64::ln(with / without));
                if plain > CERTAIN || plain.is_nan() {
                    assert!(odds > CERTAIN || odds.is_nan(), "{odds} {plain}");
                } else {
                    assert!((odds - plain).abs() < 1e-8 || odds == plain, "{odds} {plain}");
                }
            }
        }
    }

    #[test]
    fn a_seed_fixes_the_screen_on_any_number_of_threads() {
        let screen = sized("noisy", 6000, 50);
        let one = draw(&screen, 5, 1);
        assert_eq!(one, draw(&screen, 5, 3));
        assert_ne!(one.count, draw(&screen, 6, 1).count);
    }

    #[test]
    fn matrix_and_truth_are_well_formed_on_every_screen() {
        for (name, _) in SCREENS {
            let screen = sized(name, 1500, 40);
            let sim = draw(&screen, 1, 2);
            assert_eq!(sim.indptr.len(), 1501);
            assert_eq!(sim.indptr[1500] as usize, sim.guide.len());
            for cell in sim.indptr.windows(2) {
                let guides = &sim.guide[cell[0] as usize..cell[1] as usize];
                assert!(guides.windows(2).all(|g| g[0] < g[1]) && guides.iter().all(|&g| (0..40).contains(&g)));
            }
            assert!(sim.count.iter().all(|&y| y >= 1.0 && y.fract() == 0.0));
            assert!(sim.oracle.iter().all(|p| (0.0..=1.0).contains(p)), "{name}");
            assert!(sim.truth.windows(2).all(|t| t[0] < t[1]));
            let expected: f64 = sim.guides.iter().map(|g| g.prior).sum::<f64>() * 1500.0;
            assert!((sim.truth.len() as f64 - expected).abs() < 6.0 * expected.sqrt(), "{name}");
        }
    }

    /// Counts of pairs have the mean and the variance of the densities that the observer uses.
    #[test]
    fn ambient_counts_follow_their_negative_binomial() {
        let screen = Screen {
            signal_mean: 0.0,
            ambient_mean: 40.0,
            ambient_size: 0.5,
            ambient_cell_size: f64::INFINITY,
            ambient_guide_spread: 1.0,
            ..sized("easy", 20_000, 10)
        };
        let sim = draw(&screen, 9, 2);
        for (g, guide) in sim.guides.iter().enumerate() {
            let counts: Vec<f64> =
                sim.guide.iter().zip(&sim.count).filter(|(at, _)| **at as usize == g).map(|(_, y)| *y).collect();
            let mean = 40.0 * guide.ambient_share;
            let variance = mean + mean * mean / 0.5;
            let found = counts.iter().sum::<f64>() / 20_000.0;
            assert!((found - mean).abs() < 5.0 * (variance / 20_000.0).sqrt(), "{found} {mean}");
            let spread = counts.iter().map(|y| y * y).sum::<f64>() / 20_000.0 - found * found;
            assert!((spread / variance - 1.0).abs() < 0.15, "{spread} {variance}");
            let zeros = 1.0 - counts.len() as f64 / 20_000.0;
            assert!((zeros - (1.0 + mean / 0.5).powf(-0.5)).abs() < 0.02);
        }
    }

    /// In every tenth of the posteriors as many pairs are true as these say, to five standard errors.
    fn check_calibration(name: &str, sim: &Simulation) {
        let truth: std::collections::HashSet<(u32, u32)> = sim.truth.iter().copied().collect();
        let mut bins = [(0.0, 0.0, 0.0); 10];
        for cell in 0..sim.cells.len() {
            for k in sim.indptr[cell] as usize..sim.indptr[cell + 1] as usize {
                let bin = &mut bins[((sim.oracle[k] * 10.0) as usize).min(9)];
                bin.0 += 1.0;
                bin.1 += sim.oracle[k];
                bin.2 += f64::from(u8::from(truth.contains(&(cell as u32, sim.guide[k] as u32))));
            }
        }
        for (n, expected, right) in bins {
            let slack = 5.0 * f64::max(1.0, expected * (1.0 - expected / n)).sqrt();
            assert!(n == 0.0 || (right - expected).abs() < slack, "{name}: {right} of {n} true, {expected} expected");
        }
    }

    #[test]
    fn the_observer_is_calibrated() {
        for (name, _) in SCREENS {
            check_calibration(name, &draw(&sized(name, 20_000, 100), 21, 2));
        }
    }

    /// A screen whose guides are carried independently, so that judging pairs one by one loses nothing.
    fn random_screen(seed: u64) -> Screen {
        let mut rng = Rng::new(seed, 77);
        let mut between = |a: f64, b: f64| (a.ln() + rng.uniform() * (b / a).ln()).exp();
        Screen {
            n_cells: 4000,
            n_guides: between(1.0, 40.0) as usize,
            integrations: Integrations::Poisson(between(0.1, 8.0)),
            signal_mean: between(2.0, 60.0),
            signal_size: between(0.4, 10.0),
            efficiency_spread: between(0.01, 1.0),
            capture_spread: between(0.01, 1.0),
            capture_gamma: seed % 2 == 0,
            ambient_mean: between(0.1, 20.0),
            ambient_size: [between(0.2, 5.0), f64::INFINITY][(seed / 2 % 2) as usize],
            ambient_cell_size: between(0.5, 10.0),
            ambient_library: seed / 4 % 2 == 0,
            hopping: [0.0, between(0.01, 0.15)][(seed / 2 % 2) as usize],
            hopping_burst: [0.0, between(0.3, 5.0)][(seed / 4 % 2) as usize],
            min_depth: [0, 8][(seed / 8 % 2) as usize],
            lane_depth: vec![1.0, between(0.3, 3.0)],
            lane_cells: vec![1.0, between(0.3, 3.0)],
            n_empty_droplets: [500, 0][(seed / 16 % 2) as usize],
            ..Screen::named("easy").unwrap()
        }
    }

    #[test]
    fn the_observer_is_calibrated_on_random_screens_and_no_rule_of_counts_beats_the_ceiling() {
        for seed in 0..48 {
            let screen = random_screen(seed);
            let sim = draw(&screen, seed, 2);
            assert!(sim.truth.len() > 50 && sim.count.len() > 50, "{screen:?}");
            check_calibration(&format!("{screen:?}"), &sim);
            let ceiling = sim.ceiling();
            assert!((0.0..=1.0).contains(&ceiling));
            assert!(ceiling >= sim.judge(|k| sim.oracle[k] >= 0.5).f1());
            for threshold in (1..10).chain((10..300).step_by(5)) {
                let f1 = sim.judge(|k| sim.count[k] >= f64::from(threshold)).f1();
                // A few pairs either way are chance; calling every count is one of the cuts of the ceiling.
                let slack = if threshold == 1 { 1e-12 } else { 0.5 / (sim.truth.len() as f64).sqrt() };
                assert!(f1 <= ceiling + slack.min(0.005), "{threshold}: {f1} above {ceiling}, {screen:?}");
            }
        }
    }

    #[test]
    fn the_ceiling_is_the_best_cut_of_the_observer() {
        let screen = Screen {
            integrations: Integrations::Poisson(1.0),
            signal_mean: 3.0,
            signal_size: 0.7,
            ambient_mean: 3.0,
            ..sized("easy", 5000, 1)
        };
        let sim = draw(&screen, 3, 1);
        let (cut, calls) = sim.best_cut();
        assert_eq!(calls, sim.judge(|k| sim.oracle[k] >= cut));
        let at = |cut: f64| sim.judge(|k| sim.oracle[k] >= cut).f1();
        assert!([0.0, 0.2, 0.5, 0.9].into_iter().all(|other| calls.f1() >= at(other)));
        // What an observer without luck would do.
        assert!(at(0.5 * calls.f1()) > calls.f1() - 0.003, "{} {}", at(0.5 * calls.f1()), calls.f1());
    }

    #[test]
    fn a_burst_widens_the_chimeric_counts_by_what_is_asked() {
        let mean = 4.0;
        for burst in [0.5, 3.0] {
            let screen = Screen { hopping: 0.2, hopping_burst: burst, ..sized("easy", 1, 1) };
            let guides = draw_guides(&screen, 1);
            let library = library(&screen, &guides);
            check_moments("burst", mean, mean * (1.0 + burst), |rng| {
                let mut umis = vec![Umis { guide: 0, count: 16, chimeric: false }];
                assert_eq!(library.draw_chimeric(rng, &mut umis), mean);
                umis.iter().filter(|u| u.chimeric).map(|u| u.count).sum::<u64>() as f64
            });
        }
    }

    #[test]
    fn captures_of_both_laws_have_one_mean_and_variance() {
        for spread in [0.0, 0.4, 0.9] {
            for capture_gamma in [false, true] {
                let screen = Screen { capture_gamma, capture_spread: spread, ..sized("easy", 1, 1) };
                let guides = draw_guides(&screen, 1);
                let library = library(&screen, &guides);
                let mut draws = Rng::new(8, 0);
                let captures: Vec<f64> = (0..200_000).map(|_| library.draw_capture(&mut draws)).collect();
                let mean = captures.iter().sum::<f64>() / captures.len() as f64;
                let variance = captures.iter().map(|c| (c - mean) * (c - mean)).sum::<f64>() / captures.len() as f64;
                let expected = (spread * spread).exp_m1();
                assert!((mean - 1.0).abs() < 5.0 * (expected / 2e5).sqrt() + 1e-12, "{mean}");
                // The fourth moment of a wide log-normal is large.
                assert!((variance - expected).abs() <= 0.1 * expected, "{variance}, not {expected}");
            }
        }
    }

    #[test]
    fn ambient_shares_follow_the_library_if_asked() {
        let screen = Screen { efficiency_spread: 1.0, ambient_guide_spread: 0.0, ..sized("easy", 10, 50) };
        assert!(draw_guides(&screen, 2).iter().any(|g| (g.ambient_share / g.library_share - 1.0).abs() > 0.1));
        let library = draw_guides(&Screen { ambient_library: true, ..screen.clone() }, 2);
        assert!(library.iter().all(|g| (g.ambient_share / g.library_share - 1.0).abs() < 1e-12));
        // Nothing else is drawn differently.
        let efficiency = |guides: &[GuideTruth]| guides.iter().map(|g| g.efficiency).collect::<Vec<_>>();
        assert_eq!(efficiency(&library), efficiency(&draw_guides(&screen, 2)));
    }

    #[test]
    fn chosen_cells_have_their_depth_and_are_those_that_would_have_it() {
        let screen = Screen { min_depth: 30, integrations: Integrations::Poisson(1.0), ..sized("easy", 5000, 20) };
        let depths = |sim: &Simulation| -> Vec<f64> {
            sim.indptr.windows(2).map(|c| sim.count[c[0] as usize..c[1] as usize].iter().sum()).collect()
        };
        let chosen = draw(&screen, 1, 2);
        assert_eq!(chosen, draw(&screen, 1, 1));
        assert_eq!(chosen.cells.len(), 5000);
        assert!(depths(&chosen).iter().all(|&d| d >= 30.0));
        let all = draw(&Screen { min_depth: 0, n_cells: 20_000, ..screen.clone() }, 2, 2);
        let kept: Vec<f64> = depths(&all).into_iter().filter(|&d| d >= 30.0).collect();
        let mean = |d: &[f64]| d.iter().sum::<f64>() / d.len() as f64;
        assert!((mean(&depths(&chosen)) / mean(&kept) - 1.0).abs() < 0.05);
        // Cells that pass at once are those of the screen without the choice.
        let before = draw(&Screen { min_depth: 0, ..screen.clone() }, 1, 1);
        let same = (0..5000).filter(|&c| before.cells[c] == chosen.cells[c]).count();
        let passed = depths(&before).iter().filter(|&&d| d >= 30.0).count();
        assert_eq!(same, passed);
        let never = Screen { min_depth: 100_000, n_cells: 3, ..screen };
        let error = on_threads(2, || simulate(&never, 1, &Progress::default()));
        assert!(matches!(&error, Err(Error::Argument(text)) if text.contains("`min_depth` is 100000")), "{error:?}");
    }

    #[test]
    fn empty_droplets_follow_the_cells_and_change_none() {
        let screen = Screen { lane_depth: vec![1.0, 2.0], ..sized("noisy", 3000, 30) };
        let cells = draw(&screen, 1, 2);
        let sim = draw(&Screen { n_empty_droplets: 4000, droplet_ambient: 0.25, ..screen }, 1, 2);
        assert_eq!(sim.cells.len(), 7000);
        assert_eq!(sim.cells[..3000], cells.cells[..]);
        assert_eq!(sim.truth, cells.truth);
        let stored = cells.count.len();
        assert_eq!((&sim.count[..stored], &sim.oracle[..stored]), (&cells.count[..], &cells.oracle[..]));
        assert!(sim.count.len() > stored && sim.oracle[stored..].iter().all(|&p| p == 0.0));
        for lane in 0..2 {
            let droplets: Vec<f64> = sim.cells[3000..].iter().filter(|c| c.lane == lane).map(|c| c.ambient).collect();
            assert_eq!(droplets.len(), 2000);
            let mean = droplets.iter().sum::<f64>() / 2000.0;
            let expected = 0.25 * 6.0 * 0.95 * f64::from(lane + 1);
            assert!((mean / expected - 1.0).abs() < 0.1, "{mean} {expected}");
        }
        let ambient: f64 = sim.cells[3000..].iter().map(|c| c.ambient).sum();
        let found: f64 = sim.count[stored..].iter().sum::<f64>() * 0.95;
        assert!((found / ambient - 1.0).abs() < 0.05, "{found} {ambient}");
    }

    #[test]
    fn lanes_have_the_cells_they_are_given() {
        let of = |lane_cells: Vec<f64>, n_cells: usize| -> Vec<usize> {
            let screen = Screen { lane_cells, lane_depth: vec![1.0, 2.0, 3.0], ..sized("easy", n_cells, 5) };
            let sim = draw(&screen, 1, 1);
            assert!(sim.cells.windows(2).all(|c| c[0].lane <= c[1].lane));
            (0..3).map(|lane| sim.cells.iter().filter(|c| c.lane == lane).count()).collect()
        };
        assert_eq!(of(vec![1.0], 1000), [334, 333, 333]);
        assert_eq!(of(vec![1.0, 7.0, 2.0], 1000), [100, 700, 200]);
        assert_eq!(of(vec![0.1, 0.7, 0.2], 1000), [100, 700, 200]);
        assert_eq!(of(vec![1.0, 7.0, 2.0], 2).iter().sum::<usize>(), 2);
    }

    #[test]
    fn guides_of_a_single_cell_are_judged() {
        let sim = draw(&Screen { abundance_spread: 1.0, ..sized("easy", 300, 20_000) }, 1, 2);
        let mut guides: Vec<u32> = sim.truth.iter().map(|t| t.1).collect();
        guides.sort_unstable();
        let single = guides.chunk_by(|a, b| a == b).filter(|g| g.len() == 1).count();
        assert!(single > 200 && sim.ceiling() > 0.95, "{single} {}", sim.ceiling());
    }

    #[test]
    fn chimeric_molecules_are_their_share_of_a_cell() {
        let screen = Screen { hopping: 0.2, ambient_mean: 0.0, ..sized("easy", 5000, 100) };
        let sim = draw(&screen, 2, 1);
        let chimeric: f64 = sim.cells.iter().map(|c| c.chimeric).sum();
        assert!((chimeric / sim.count.iter().sum::<f64>() - 0.2).abs() < 0.005);
    }

    #[test]
    fn dual_constructs_bring_two_guides_and_recombine_as_often_as_asked() {
        let screen = Screen { integrations: Integrations::One, recombined: 0.3, ..sized("dual_guide", 20_000, 40) };
        let sim = draw(&screen, 4, 2);
        assert_eq!(sim.truth.len(), 40_000);
        let swapped = sim.truth.chunks(2).filter(|pair| pair[0].1 / 2 != pair[1].1 / 2).count();
        assert!((swapped as f64 / 20_000.0 - 0.3).abs() < 0.02, "{swapped}");
        assert!(sim.truth.chunks(2).all(|pair| pair[0].0 == pair[1].0 && (pair[0].1 + pair[1].1) % 2 == 1));
    }

    #[test]
    fn lanes_shift_depth_and_ambient() {
        let sim = draw(&sized("batch_shift", 3000, 100), 1, 1);
        let mean = |lane: u32, f: fn(&CellTruth) -> f64| {
            let cells: Vec<f64> = sim.cells.iter().filter(|c| c.lane == lane).map(f).collect();
            assert_eq!(cells.len(), 1000);
            cells.iter().sum::<f64>() / 1000.0
        };
        assert!((mean(2, |c| c.capture) / mean(0, |c| c.capture) / 16.0 - 1.0).abs() < 0.1);
        assert!((mean(2, |c| c.ambient) / mean(0, |c| c.ambient) / (16.0 / 3.0) - 1.0).abs() < 0.1);
    }

    #[test]
    fn parameters_go_through_their_names() {
        let mut screen = Screen::named("easy").unwrap();
        let noisy = Screen::named("noisy").unwrap();
        for (name, values) in noisy.values() {
            screen.set(name, &values).unwrap();
        }
        assert_eq!(screen, noisy);
        let random = random_screen(1);
        for (name, values) in random.values() {
            screen.set(name, &values).unwrap();
        }
        assert_eq!(screen, random);
        screen.set("moi", &[f64::NAN]).unwrap();
        assert_eq!(screen.integrations, Integrations::One);
        for (name, values) in [
            ("hopping", vec![1.0]),
            ("moi", vec![-1.0]),
            ("n_cells", vec![0.5]),
            ("signal_size", vec![0.0]),
            ("lane_depth", vec![]),
            ("ambient_mean", vec![1.0, 2.0]),
            ("dual", vec![2.0]),
            ("capture_gamma", vec![0.5]),
            ("ambient_library", vec![2.0]),
            ("hopping_burst", vec![-1.0]),
            ("min_depth", vec![1.5]),
            ("lane_cells", vec![0.0]),
            ("lane_cells", vec![]),
            ("n_empty_droplets", vec![-1.0]),
            ("droplet_ambient", vec![f64::NAN]),
            ("moii", vec![1.0]),
        ] {
            let mut bad = noisy.clone();
            let error = bad.set(name, &values).and_then(|()| simulate(&bad, 1, &Progress::default()).map(|_| ()));
            assert!(matches!(&error, Err(Error::Argument(text)) if text.contains(name)), "{name}: {error:?}");
        }
    }

    #[test]
    fn edges_give_results() {
        let one = Screen { n_cells: 1, n_guides: 1, ..Screen::named("easy").unwrap() };
        assert_eq!(draw(&one, 1, 1).truth, [(0, 0)]);
        let silent = Screen { signal_mean: 0.0, ambient_mean: 0.0, ..sized("noisy", 50, 10) };
        let sim = draw(&silent, 1, 1);
        assert!(sim.count.is_empty() && !sim.truth.is_empty() && sim.ceiling() == 0.0);
        let empty = Screen { share_empty: 1.0, ..sized("easy", 50, 10) };
        assert!(draw(&empty, 1, 1).truth.is_empty());
        let doublets = Screen { share_doublet: 1.0, integrations: Integrations::One, ..sized("easy", 500, 100) };
        assert!(draw(&doublets, 1, 1).truth.len() > 950);
    }
}
