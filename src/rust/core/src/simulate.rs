//! Guide screens with known truth, and the best that could be known of them.
//!
//! One count of guide g in cell c is the sum of three sources:
//!
//! | source | law | mean |
//! |---|---|---|
//! | signal, if the cell carries g | negative binomial, size `signal_size` | (1 - hopping) * signal_mean * lane depth * capture of c * efficiency of g |
//! | ambient | negative binomial, size `ambient_size` | (1 - hopping) * ambient_mean * lane depth * lane ambient * exposure of c * ambient share of g |
//! | chimeric | Poisson | hopping / (1 - hopping) * (signal + ambient UMIs of c) * library share of g |
//!
//! capture ~ log-normal with mean 1; exposure ~ gamma with mean 1 and shape `ambient_cell_size`; efficiency ~ log-normal
//! with mean 1; abundance of a construct ~ log-normal; ambient share ~ abundance x log-normal; library share ~
//! abundance x efficiency. A size of infinity is the Poisson limit.
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
    /// Mean signal of a carried guide, UMIs.
    pub signal_mean: f64,
    /// Negative binomial size of the signal.
    pub signal_size: f64,
    /// Standard deviation of the log efficiency of guides.
    pub efficiency_spread: f64,
    /// Standard deviation of the log capture of cells.
    pub capture_spread: f64,
    /// Mean ambient UMIs of a cell, over all guides.
    pub ambient_mean: f64,
    /// Negative binomial size of the ambient count of one guide in one cell.
    pub ambient_size: f64,
    /// Gamma shape of the ambient exposure of cells.
    pub ambient_cell_size: f64,
    /// Standard deviation of the log ambient share of guides, beyond their abundance.
    pub ambient_guide_spread: f64,
    /// Share of a cell's UMIs that are chimeric.
    pub hopping: f64,
    /// Standard deviation of the log abundance of constructs.
    pub abundance_spread: f64,
    /// Factor on all UMIs of each lane.
    pub lane_depth: Vec<f64>,
    /// Factor on the ambient UMIs of each lane.
    pub lane_ambient: Vec<f64>,
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
            signal_mean: 60.0,
            signal_size: 3.0,
            efficiency_spread: 0.3,
            capture_spread: 0.3,
            ambient_mean: 2.0,
            ambient_size: 0.4,
            ambient_cell_size: 5.0,
            ambient_guide_spread: 0.3,
            hopping: 0.0,
            abundance_spread: 0.3,
            lane_depth: vec![1.0],
            lane_ambient: vec![1.0],
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
            ("signal_mean", vec![self.signal_mean]),
            ("signal_size", vec![self.signal_size]),
            ("efficiency_spread", vec![self.efficiency_spread]),
            ("capture_spread", vec![self.capture_spread]),
            ("ambient_mean", vec![self.ambient_mean]),
            ("ambient_size", vec![self.ambient_size]),
            ("ambient_cell_size", vec![self.ambient_cell_size]),
            ("ambient_guide_spread", vec![self.ambient_guide_spread]),
            ("hopping", vec![self.hopping]),
            ("abundance_spread", vec![self.abundance_spread]),
            ("lane_depth", self.lane_depth.clone()),
            ("lane_ambient", self.lane_ambient.clone()),
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
        let whole = |x: f64| {
            if x >= 1.0 && x <= f64::from(i32::MAX) && x.fract() == 0.0 {
                Ok(x as usize)
            } else {
                Err(Error::Argument(format!("`{name}` is {x}; it must be a whole number from 1 to {}.", i32::MAX)))
            }
        };
        match name {
            "lane_depth" => self.lane_depth = values.to_vec(),
            "lane_ambient" => self.lane_ambient = values.to_vec(),
            _ => {
                let &[x] = values else {
                    return Err(Error::Argument(format!("`{name}` has {} values; it must have one.", values.len())));
                };
                match name {
                    "n_cells" => self.n_cells = whole(x)?,
                    "n_guides" => self.n_guides = whole(x)?,
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
        self.lane_depth.len().max(self.lane_ambient.len())
    }

    fn check(&self) -> Result<()> {
        let fail =
            |name: &str, x: f64, rule: &str| Err(Error::Argument(format!("`{name}` is {x}; it must be {rule}.")));
        for (name, x) in [("n_cells", self.n_cells), ("n_guides", self.n_guides)] {
            if x == 0 || x > i32::MAX as usize {
                return fail(name, x as f64, "a whole number from 1 to 2147483647");
            }
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
        if ![1, self.lanes()].contains(&self.lane_depth.len()) || ![1, self.lanes()].contains(&self.lane_ambient.len())
        {
            return Err(Error::Argument(format!(
                "`lane_depth` has {} values and `lane_ambient` {}; give both one value per lane, or one for all.",
                self.lane_depth.len(),
                self.lane_ambient.len()
            )));
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
    /// Factor on the signal: lane depth x capture.
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
    /// every parameter, capture and exposure, but not who carries what. Pairs are judged one by one: that a cell has
    /// exactly one construct, or that two guides share one, is not used.
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

    /// The F1 of the observer's calls at a posterior of 0.5.
    pub fn ceiling(&self) -> f64 {
        self.judge(|k| self.oracle[k] >= 0.5).f1()
    }
}

/// Draws a screen on the current thread pool. Same screen and seed, same result, on any number of threads.
pub fn simulate(screen: &Screen, seed: u64, progress: &Progress) -> Result<Simulation> {
    screen.check()?;
    let guides = draw_guides(screen, seed);
    let library = Library {
        screen,
        construct: Alias::new(&construct_shares(&guides, screen.dual)),
        ambient: Alias::new(&guides.iter().map(|g| g.ambient_share).collect::<Vec<_>>()),
        chimeric: Alias::new(&guides.iter().map(|g| g.library_share).collect::<Vec<_>>()),
        guides: &guides,
    };
    let blocks = progress.map(screen.n_cells.div_ceil(BLOCK), |b| {
        library.draw_block(seed, b * BLOCK..screen.n_cells.min((b + 1) * BLOCK))
    })?;

    let stored: usize = blocks.iter().map(|b| b.guide.len()).sum();
    if stored > i32::MAX as usize {
        return Err(Error::Argument(format!(
            "The screen has {stored} non-zero counts, more than a sparse matrix of R can hold (2147483647). \
             Simulate fewer cells (`n_cells`) or fewer ambient UMIs (`ambient_mean`)."
        )));
    }
    let mut out = Simulation {
        indptr: Vec::with_capacity(screen.n_cells + 1),
        guide: Vec::with_capacity(stored),
        count: Vec::with_capacity(stored),
        oracle: Vec::with_capacity(stored),
        truth: Vec::with_capacity(blocks.iter().map(|b| b.truth.len()).sum()),
        cells: Vec::with_capacity(screen.n_cells),
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

/// Guides 2k and 2k + 1 are the first and second of construct k when constructs are dual.
fn draw_guides(screen: &Screen, seed: u64) -> Vec<GuideTruth> {
    let per_construct = if screen.dual { 2 } else { 1 };
    let mut rng = Rng::new(seed, u64::MAX);
    let mut abundance: Vec<f64> =
        (0..screen.n_guides / per_construct).map(|_| rng.log_normal(screen.abundance_spread)).collect();
    normalise(&mut abundance);
    let efficiency: Vec<f64> = (0..screen.n_guides).map(|_| rng.log_normal(screen.efficiency_spread)).collect();
    let mut ambient: Vec<f64> = (0..screen.n_guides)
        .map(|g| abundance[g / per_construct] * rng.log_normal(screen.ambient_guide_spread))
        .collect();
    normalise(&mut ambient);
    let mut library: Vec<f64> = (0..screen.n_guides).map(|g| abundance[g / per_construct] * efficiency[g]).collect();
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
}

#[derive(Default)]
struct Block {
    ends: Vec<usize>,
    guide: Vec<i32>,
    count: Vec<f64>,
    oracle: Vec<f64>,
    truth: Vec<(u32, u32)>,
    cells: Vec<CellTruth>,
}

impl Library<'_> {
    fn draw_block(&self, seed: u64, cells: Range<usize>) -> Block {
        let screen = self.screen;
        let mut block = Block::default();
        let mut carried: Vec<u32> = Vec::new();
        let mut umis: Vec<(u32, u64)> = Vec::new();
        let mut masses = Vec::new();
        for cell in cells {
            let mut rng = Rng::new(seed, cell as u64);
            let lane = cell * screen.lanes() / screen.n_cells;
            let depth = screen.lane_depth[lane % screen.lane_depth.len()];
            let capture = depth * rng.log_normal(screen.capture_spread);
            let exposure = if screen.ambient_cell_size.is_finite() {
                rng.gamma(screen.ambient_cell_size) / screen.ambient_cell_size
            } else {
                1.0
            };
            let ambient = (1.0 - screen.hopping)
                * screen.ambient_mean
                * depth
                * screen.lane_ambient[lane % screen.lane_ambient.len()]
                * exposure;

            carried.clear();
            for _ in 0..1 + usize::from(rng.uniform() < screen.share_doublet) {
                self.infect(&mut rng, &mut carried);
            }
            carried.sort_unstable();
            carried.dedup();
            block.truth.extend(carried.iter().map(|&g| (cell as u32, g)));

            umis.clear();
            for &g in &carried {
                let n = rng.negative_binomial(self.signal(capture, g as usize), screen.signal_size);
                umis.push((g, n));
            }
            self.draw_ambient(&mut rng, ambient, &mut umis);
            let kept: u64 = umis.iter().map(|u| u.1).sum();
            let chimeric = screen.hopping / (1.0 - screen.hopping) * kept as f64;
            for _ in 0..rng.poisson(chimeric) {
                umis.push((self.chimeric.draw(&mut rng) as u32, 1));
            }
            umis.sort_unstable_by_key(|u| u.0);

            let truth = CellTruth { lane: lane as u32, capture, ambient, chimeric };
            let mut next = 0;
            while next < umis.len() {
                let g = umis[next].0;
                let mut y = 0;
                while next < umis.len() && umis[next].0 == g {
                    y += umis[next].1;
                    next += 1;
                }
                if y > 0 {
                    block.guide.push(g as i32);
                    block.count.push(y as f64);
                    block.oracle.push(self.posterior(&truth, g as usize, y, &mut masses));
                }
            }
            block.ends.push(block.guide.len());
            block.cells.push(truth);
        }
        block
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
    fn draw_ambient(&self, rng: &mut Rng, total: f64, umis: &mut Vec<(u32, u64)>) {
        let size = self.screen.ambient_size;
        for _ in 0..rng.poisson(total) {
            let g = self.ambient.draw(rng);
            if size.is_infinite() {
                umis.push((g as u32, 1));
                continue;
            }
            let mean = total * self.guides[g].ambient_share;
            if rng.uniform() * mean < size * (mean / size).ln_1p() {
                umis.push((g as u32, rng.logarithmic(mean / (size + mean))));
            }
        }
    }

    /// Bayes' rule with the densities that drew the count.
    fn posterior(&self, cell: &CellTruth, g: usize, y: u64, masses: &mut Vec<f64>) -> f64 {
        let guide = &self.guides[g];
        let background = Background {
            ambient: cell.ambient * guide.ambient_share,
            size: self.screen.ambient_size,
            chimeric: cell.chimeric * guide.library_share,
        };
        let ln0 = background.ln_mass(y, masses);
        let ln1 = background.ln_mass_with(self.signal(cell.capture, g), self.screen.signal_size, y, masses);
        let log_odds = (guide.prior / (1.0 - guide.prior)).ln() + ln1 - ln0;
        if log_odds.is_nan() {
            // Neither source can make the count: only with a mean of zero on both sides.
            return guide.prior;
        }
        1.0 / (1.0 + (-log_odds).exp())
    }
}

/// The count without signal: a negative binomial plus a Poisson.
struct Background {
    ambient: f64,
    size: f64,
    chimeric: f64,
}

/// A mass below this share of the largest cannot move a posterior.
const NEGLIGIBLE: f64 = 1e-14;

impl Background {
    fn ln_mass(&self, y: u64, masses: &mut Vec<f64>) -> f64 {
        if self.size.is_infinite() {
            return ln_poisson(y, self.ambient + self.chimeric);
        }
        if self.chimeric == 0.0 {
            return ln_negative_binomial(y, self.ambient, self.size);
        }
        // Sum over the chimeric share of the count, in logs: y may be far in the tail.
        masses.clear();
        let mut a = ln_negative_binomial(y, self.ambient, self.size);
        let mut c = -self.chimeric;
        let fall = (self.ambient / (self.size + self.ambient)).ln();
        let ln_chimeric = self.chimeric.ln();
        for j in 0..=y {
            masses.push(a + c);
            let left = (y - j) as f64;
            if j < y {
                a += left.ln() - (left - 1.0 + self.size).ln() - fall;
                c += ln_chimeric - ((j + 1) as f64).ln();
            }
        }
        ln_sum_exp(masses)
    }

    /// The count with a signal added: sums over the background's share of it, until the background has no mass left.
    fn ln_mass_with(&self, signal: f64, size: f64, y: u64, masses: &mut Vec<f64>) -> f64 {
        let mut inner = Vec::new();
        let mut terms = std::mem::take(masses);
        terms.clear();
        let mut top = f64::NEG_INFINITY;
        let mean = self.ambient + self.chimeric;
        for j in 0..=y {
            let term = self.ln_mass(j, &mut inner) + ln_negative_binomial(y - j, signal, size);
            terms.push(term);
            top = top.max(term);
            // Past the mean of the background both factors' product falls, unless the signal still rises towards its
            // bulk below y; so look at the background alone, relative to the best term.
            if j as f64 > mean && self.ln_mass(j, &mut inner) < top + NEGLIGIBLE.ln() {
                break;
            }
        }
        let sum = ln_sum_exp(&terms);
        *masses = terms;
        sum
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
            Background { ambient: 0.4, size: f64::INFINITY, chimeric: 0.0 },
            Background { ambient: 0.4, size: 0.2, chimeric: 0.0 },
            Background { ambient: 1.4, size: 0.7, chimeric: 2.1 },
            Background { ambient: 0.0, size: 0.7, chimeric: 0.0 },
        ] {
            let alone = |y: u64| -> f64 {
                (0..=y)
                    .map(|j| {
                        ln_poisson(j, background.chimeric).exp()
                            * ln_negative_binomial(y - j, background.ambient, background.size).exp()
                    })
                    .sum()
            };
            let (mut total0, mut total1) = (0.0, 0.0);
            for y in 0..400 {
                let with: f64 = (0..=y).map(|j| alone(j) * ln_negative_binomial(y - j, signal, size).exp()).sum();
                let (found0, found1) = (
                    background.ln_mass(y, &mut scratch).exp(),
                    background.ln_mass_with(signal, size, y, &mut scratch).exp(),
                );
                assert!((found0 - alone(y)).abs() <= 1e-10 * alone(y) + 1e-300, "{y}: {found0}");
                assert!((found1 - with).abs() <= 1e-9 * with, "{y}: {found1} {with}");
                total0 += found0;
                total1 += found1;
            }
            assert!((total0 - 1.0).abs() < 1e-9 && (total1 - 1.0).abs() < 1e-9, "{total0} {total1}");
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

    #[test]
    fn the_observer_is_calibrated() {
        for (name, _) in SCREENS {
            let sim = draw(&sized(name, 20_000, 100), 21, 2);
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
                assert!((right - expected).abs() < slack, "{name}: {right} of {n} true, {expected} expected");
            }
        }
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
