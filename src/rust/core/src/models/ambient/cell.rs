//! One cell: its likelihood and the posteriors of its counts, summed over nodes of exposure and capture.
//!
//! Given exposure e and capture d the guides of a cell are independent, so its likelihood is a sum over pairs of nodes of a
//! product over guides. The zeros, of which there are most, are tabled for all guides at once. Each stored count then
//! replaces its zero by
//!
//!   F(e, d) = b_y(e) + hidden(d) sum_{j < y} b_j(e) s_{y-j}(d)
//!
//! where b_j is the mass of j background UMIs over that of none, s_i that of i signal UMIs over that of none, and `hidden`
//! the probability that the guide is carried, given a zero. A share hidden(d) of the first term is carried, too.
use super::grid::{CAPTURES, EXPOSURES};
use super::params::Params;
use super::tables::{up_to, Tables};
use crate::special::{ln_1p, LnSum};
use std::collections::HashMap;

/// The counts of a cell.
#[derive(Clone, Copy)]
pub struct Counts<'a> {
    pub class: usize,
    pub guides: &'a [i32],
    pub umis: &'a [f64],
    pub depth: f64,
}

/// First looks take so many nodes of a range.
const FIRST_NODES: usize = 7;
/// How exact a look is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grade {
    /// Nodes are so many standard deviations of the posterior apart, at most.
    apart: f64,
    /// Nodes with less of the posterior than this are left out; they do if those at the ends have no more than `ends`.
    matters: f64,
    ends: f64,
    /// The sum of a count ends where a term is less than this of it.
    tiny: f64,
    /// Whether posteriors are final: priors by the trapezoid rule; the odds of counts that are certain are worked out, too.
    is_final: bool,
}

/// What parameters learn from: the error of a sum is about 1e-4.
pub const TRAINING: Grade = Grade { apart: 1.4, matters: 1e-5, ends: 1e-4, tiny: 1e-6, is_final: false };
/// Final posteriors of cells whose counts are all certain, and of others.
pub const WIDE: Grade = Grade { apart: 1.2, matters: 1e-6, ends: 1e-5, tiny: 1e-9, is_final: true };
pub const FINE: Grade = Grade { apart: 0.7, matters: 1e-7, ends: 1e-6, tiny: 1e-9, is_final: true };
/// Counts with less extreme log odds than this are not certain.
pub const CERTAIN: f64 = 6.0;
/// Most nodes of one kind in a look; and looks until the nodes fit.
const MOST_NODES: usize = 64;
const LOOKS: usize = 4;
const FEW_LOOKS: usize = 2;
/// A cell is looked at again where it takes this many times fewer nodes.
const WASTE: usize = 4;
/// Up to here, masses are multiplied up from that of a zero, and all terms of the sum are taken one by one.
const MULTIPLIED: usize = 16;
/// Further out, s is taken as straight between terms that are so many standard deviations of the signal apart; the first ones are
/// taken one by one.
const GROUP: f64 = 0.15;
const ONE_BY_ONE: usize = 6;
/// Masses from here on can be multiplied up.
const SAFE: f64 = 1e-250;
/// Counts above this are taken as this: they are certain either way.
const MOST_UMIS: f64 = 10_000.0;
/// Most background UMIs whose masses are worked out one by one where signal is certain.
const FAR_OUT: usize = 300;
/// Logarithms up to this have no exponential near the end of doubles.
const LARGE_LN: f64 = 500.0;
/// Up to this logarithm masses are over those of a zero.
const FAR: f64 = 200.0;
/// Masses from here on are scaled down.
const LARGE: f64 = 1e200;
/// A background of less than this of all changes nothing that is learnt.
const NOTHING: f64 = 1e-12;
/// Log odds are reported up to this.
pub const MOST_LN_ODDS: f64 = 700.0;

/// Every `stride`-th node from `first` on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Nodes {
    first: u16,
    n: u16,
    stride: u16,
}

impl Nodes {
    /// About so many nodes that cover the range.
    fn covering((from, to): (usize, usize), about: usize) -> Self {
        Self::with_stride((from, to), (to - from).div_ceil(about).max(1))
    }

    fn with_stride((from, to): (usize, usize), stride: usize) -> Self {
        let n = (to - from).div_ceil(stride).max(1);
        // Centred.
        let first = (from + to).saturating_sub((n - 1) * stride) / 2;
        Self { first: first as u16, n: n as u16, stride: stride as u16 }
    }

    fn len(&self) -> usize {
        self.n as usize
    }

    fn at(&self, i: usize) -> usize {
        self.first as usize + i * self.stride as usize
    }

    fn indices(self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(move |i| self.at(i))
    }

    /// What a node stands for, see [`up_to`]: half way to its neighbours; the ends take all that is beyond.
    fn range(&self, i: usize, all: usize) -> (usize, usize) {
        let (middle, stride) = (2 * self.at(i) + 1, self.stride as usize);
        let from = if i == 0 { 0 } else { middle - stride };
        let to = if i + 1 == self.len() { 2 * all } else { (middle + stride).min(2 * all) };
        (from.min(to), to)
    }
}

/// Where the posterior of a cell was last found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    exposure: Nodes,
    capture: Nodes,
}

/// Cells of which one is a good guess for where the posterior of the next lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    class: u32,
    n: u32,
    /// The largest count, over the efficiency of its guide, and the rest of the UMIs, in steps of their logarithms.
    top: i32,
    rest: i32,
}

impl Kind {
    fn of(params: &Params, counts: Counts) -> Self {
        let (mut top, mut ratio) = (0.0, 0.0);
        for (&guide, &y) in counts.guides.iter().zip(counts.umis) {
            if y > top {
                (top, ratio) = (y, y / params.efficiency[guide as usize]);
            }
        }
        let step = |x: f64| (4.0 * x.max(1e-9).ln()) as i32;
        let rest = counts.depth - top;
        Self { class: counts.class as u32, n: (counts.guides.len() as u32).min(12), top: step(ratio), rest: step(rest + 1.0) }
    }
}

/// What a cell is known to be once it was looked at; its arrays hold what the next cell overwrites.
#[derive(Default)]
pub struct Look {
    guesses: HashMap<Kind, Place>,
    place: Place,
    next: Place,
    /// Posterior weight of each pair of nodes, capture by capture, all sets of guides taken together; sums to `any`.
    pub weight: Vec<f64>,
    /// Of each node of exposure, that of the empty set, of weight 1. `none` is its sum times what the weight of the empty cell
    /// has beyond 1, and may be negative. `any` and `none` sum to 1.
    pub empty: Vec<f64>,
    pub beyond: f64,
    pub none: f64,
    pub ln_lik: f64,
    any: f64,
    spans: Vec<Span>,
    /// Rows of b_j, or sums of some, by node of exposure; and b_j times what [`Lesson::soup`] is of j.
    back: Vec<f64>,
    soup: Vec<f64>,
    /// hidden s_{y-j} by node of capture, and y - j, of the same rows.
    fore: Vec<f64>,
    signal: Vec<f64>,
    /// F of each count at each pair of nodes, over its largest.
    factor: Vec<f64>,
    of_exposure: Vec<f64>,
    of_capture: Vec<f64>,
    s: Vec<f64>,
    ratio: Vec<f64>,
    background: Background,
    /// See [`Look::find_sources`].
    sources: Vec<f64>,
    sorted: Vec<f64>,
    sums: Vec<f64>,
    /// Whether exposures are so large that masses over those of a zero would overflow. Then all are as they are: `zeros` are
    /// the logarithms of those of a zero, by count and node of exposure, `rest` of a zero of all guides without UMIs.
    is_far: bool,
    zeros: Vec<f64>,
    rest: Vec<f64>,
}

/// Where the rows of a count are.
#[derive(Clone, Copy, Default)]
struct Span {
    back: usize,
    fore: usize,
    signal: usize,
    factor: usize,
    /// Rows of the sum over j < y; b_y follows them.
    rows: usize,
    /// F is divided by a bound of it.
    scale: f64,
}

/// What is known of a stored count.
#[derive(Clone, Copy, Default, Debug)]
pub struct Pair {
    pub carried: f64,
    pub ln_odds: f64,
}

/// What a stored count says of its guide.
#[derive(Clone, Copy, Default, Debug)]
pub struct Lesson {
    pub carried: f64,
    /// Ambient UMIs, weighted by a / (a + e q), and bursts of them.
    pub soup: f64,
    /// Signal UMIs and the captures that could bring them, weighted by r / (r + d f).
    pub signal: f64,
    pub captured: f64,
    /// What a zero in its place would have hidden: carriers and their weighted capture.
    pub hidden: f64,
    pub hidden_captured: f64,
}

impl Look {
    /// Looks at a cell with UMIs, from where its posterior was before, if it was looked at. Only if `exact` are the odds of
    /// counts so large that they are certain signal worked out.
    pub fn see(&mut self, params: &Params, tables: &Tables, counts: Counts, before: Option<Place>, grade: Grade) {
        let ranges = (tables.exposure_range, tables.capture_range);
        let fits = |nodes: Nodes, (from, to): (usize, usize)| nodes.at(0) >= from && nodes.at(nodes.len() - 1) < to;
        let fits = |place: &Place| fits(place.exposure, ranges.0) && fits(place.capture, ranges.1);
        let known = before.filter(fits);
        let kind = known.is_none().then(|| Kind::of(params, counts));
        let before = known.or_else(|| kind.and_then(|kind| self.guesses.get(&kind).copied()).filter(fits));
        self.place = before.unwrap_or_else(|| Place {
            exposure: Nodes::covering(ranges.0, FIRST_NODES + 2),
            capture: Nodes::covering(ranges.1, FIRST_NODES),
        });
        let looks = if known.is_some() && !grade.is_final { FEW_LOOKS } else { LOOKS };
        self.looks(params, tables, counts, grade, looks);
        if let (Some(kind), None) = (kind, before) {
            self.guesses.insert(kind, self.next);
        }
    }

    /// Looks again at the cell that was looked at last.
    pub fn see_again(&mut self, params: &Params, tables: &Tables, counts: Counts, grade: Grade) {
        self.place.exposure = better(&self.of_exposure, self.place.exposure, tables.exposure_range, grade).0;
        self.place.capture = better(&self.of_capture, self.place.capture, tables.capture_range, grade).0;
        self.looks(params, tables, counts, grade, LOOKS);
    }

    fn looks(&mut self, params: &Params, tables: &Tables, counts: Counts, grade: Grade, looks: usize) {
        self.find_sources(counts.umis);
        let ranges = (tables.exposure_range, tables.capture_range);
        for look in 0..looks {
            self.look(params, tables, counts, grade);
            self.marginals();
            let (exposure, short_k) = better(&self.of_exposure, self.place.exposure, ranges.0, grade);
            let (capture, short_l) = better(&self.of_capture, self.place.capture, ranges.1, grade);
            self.next = Place { exposure, capture };
            // Nodes that are only more than it takes are for the next look at such a cell to leave out.
            let nodes = |place: &Place| place.exposure.len() * place.capture.len();
            if look + 1 == looks || !(short_k || short_l || nodes(&self.place) > WASTE * nodes(&self.next)) {
                break;
            }
            self.place = self.next;
        }
    }

    /// Where to look at the cell next.
    pub fn next_place(&self) -> Place {
        self.next
    }

    /// Nodes of exposure, the finest nodes that each stands for, and the posterior mass of each.
    pub fn exposures(&self) -> impl Iterator<Item = (usize, (usize, usize), f64)> + '_ {
        let nodes = self.place.exposure;
        self.of_exposure.iter().enumerate().map(move |(i, &mass)| (nodes.at(i), nodes.range(i, EXPOSURES.n), mass))
    }

    pub fn captures(&self) -> impl Iterator<Item = (usize, (usize, usize), f64)> + '_ {
        let nodes = self.place.capture;
        self.of_capture.iter().enumerate().map(move |(i, &mass)| (nodes.at(i), nodes.range(i, CAPTURES.n), mass))
    }

    /// Posterior masses of the nodes: of exposure, and of capture of the cell that may carry guides.
    pub fn marginals(&mut self) {
        self.of_exposure.clear();
        self.of_exposure.extend(self.empty.iter().map(|w| w * self.beyond));
        self.of_capture.clear();
        for row in self.weight.chunks_exact(self.empty.len()) {
            self.of_exposure.iter_mut().zip(row).for_each(|(sum, w)| *sum += w);
            self.of_capture.push(row.iter().sum::<f64>());
        }
    }

    fn look(&mut self, params: &Params, tables: &Tables, counts: Counts, grade: Grade) {
        let shared = &params.shared;
        let prior = &tables.classes[counts.class];
        let mut ln = LnSum::default();
        // Prior and zeros.
        let (ks, ls) = (self.place.exposure, self.place.capture);
        let (n_k, n_l) = (ks.len(), ls.len());
        let top = |nodes: Nodes, ln: &[f64]| {
            let top = nodes.indices().map(|i| ln[i]).fold(f64::NEG_INFINITY, f64::max);
            // Mostly the exponentials that are tabled do.
            if top > -LARGE_LN {
                0.0
            } else {
                top
            }
        };
        let far = ks.indices().fold(0.0, |far: f64, k| far.max(-tables.ln_zero_ambient[k]));
        self.is_far = far + shared.hopping * counts.depth > FAR;
        self.zeros.clear();
        self.rest.clear();
        self.rest.extend(ks.indices().map(|k| tables.ln_zero_ambient[k]));
        if self.is_far {
            let chimeras = self.own_zeros(params, tables, counts);
            ln.add(-chimeras);
        }
        let top_k = match self.is_far {
            true => self.rest.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            false => top(ks, &tables.ln_zero_ambient),
        };
        let top_l = top(ls, &tables.signal.ln_zero);
        let zero = |ln: f64, tabled: f64, top: f64| if top == 0.0 { tabled } else { (ln - top).exp() };
        // What a node stands for: where only the fit is at stake, the mass up to half way to its neighbours, which the M-step counts
        // by; in the end, by the trapezoid rule, which is exact for smooth integrands.
        let middle = |sums: &[f64; 2], stride: usize, mass: f64, i: usize, n: usize| match (n, i) {
            (1, _) => sums[1],
            (_, 0) => sums[0] + 0.5 * stride as f64 * mass,
            _ if i + 1 == n => sums[1] - sums[0] + 0.5 * stride as f64 * mass,
            _ => stride as f64 * mass,
        };
        self.empty.clear();
        for i in 0..n_k {
            let k = ks.at(i);
            let below = &prior.exposure_below;
            let mass = if grade.is_final {
                middle(
                    &[up_to(below, 2 * k + 1)[0], below[EXPOSURES.n][0]],
                    ks.stride as usize,
                    prior.exposure[k],
                    i,
                    n_k,
                )
            } else {
                let (from, to) = ks.range(i, EXPOSURES.n);
                up_to(below, to)[0] - up_to(below, from)[0]
            };
            let zero = match self.is_far {
                true => (self.rest[i] - top_k).exp(),
                false => zero(tables.ln_zero_ambient[k], tables.zero_ambient[k], top_k),
            };
            self.empty.push(mass.max(0.0) * zero);
        }
        self.weight.clear();
        let mut all_masses = 0.0;
        for i in 0..n_l {
            let l = ls.at(i);
            let below = &prior.capture_below;
            let mass = if grade.is_final {
                middle(
                    &[up_to(below, 2 * l + 1)[0], below[CAPTURES.n][0]],
                    ls.stride as usize,
                    prior.capture[l],
                    i,
                    n_l,
                )
            } else {
                let (from, to) = ls.range(i, CAPTURES.n);
                up_to(below, to)[0] - up_to(below, from)[0]
            };
            all_masses += mass;
            let of_l = mass.max(0.0) * zero(tables.signal.ln_zero[l], tables.signal.zero[l], top_l);
            self.weight.extend(self.empty.iter().map(|of_k| of_l * of_k));
        }
        // The empty set, over all captures, in the same scale.
        self.beyond = shared.empty_weight - all_masses;
        let none = (tables.ln_none - top_l).exp();
        self.empty.iter_mut().for_each(|w| *w *= none);
        ln.add(top_k + top_l - tables.ln_weight);
        // A zero of the chimeras of all guides.
        let hopping = shared.hopping * tables.burst_zero;
        ln.add(-hopping * counts.depth);

        self.spans.clear();
        self.back.clear();
        self.soup.clear();
        self.fore.clear();
        self.signal.clear();
        self.factor.clear();
        for (at, (&guide, &y)) in counts.guides.iter().zip(counts.umis).enumerate() {
            let g = guide as usize;
            ln.add(hopping * (counts.depth - self.sources[at]) * params.library[g]);
            let most = self.masses(params, tables, (at, g, y), grade);
            self.multiply(n_k, n_l);
            ln.times(most);
            if at % 8 == 7 {
                let top = self.weight.iter().chain(&self.empty).fold(0.0, |top: f64, w| top.max(*w));
                if top > 0.0 && top < 1e-60 {
                    self.weight.iter_mut().chain(&mut self.empty).for_each(|w| *w /= top);
                    ln.times(top);
                }
            }
        }
        let any: f64 = self.weight.iter().sum();
        let none = self.beyond * self.empty.iter().sum::<f64>();
        let all = (any + none).max(f64::MIN_POSITIVE);
        self.weight.iter_mut().chain(&mut self.empty).for_each(|w| *w /= all);
        (self.any, self.none) = (any / all, none / all);
        ln.times(all);
        self.ln_lik = ln.total();
    }

    /// The UMIs that chimeras of each count come from: those of larger counts. So each count hangs on larger ones only, zeros on
    /// all, and the product over guides is a likelihood; two counts do not explain one another.
    fn find_sources(&mut self, umis: &[f64]) {
        let (sorted, sums) = (&mut self.sorted, &mut self.sums);
        sorted.clear();
        sorted.extend_from_slice(umis);
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        sums.clear();
        sums.push(0.0);
        sums.extend(sorted.iter().scan(0.0, |sum, y| {
            *sum += y;
            Some(*sum)
        }));
        self.sources.clear();
        self.sources.extend(umis.iter().map(|y| sums[sorted.partition_point(|larger| larger > y)]));
    }

    /// Logarithms of the masses of a zero of the background of each stored count, at each node of exposure, which are taken from
    /// what is left for all others. The sum of those of the chimeras, which are the same at each node, is returned.
    fn own_zeros(&mut self, params: &Params, tables: &Tables, counts: Counts) -> f64 {
        let shared = &params.shared;
        let ks = self.place.exposure;
        let mut of_chimeras = 0.0;
        for (&guide, source) in counts.guides.iter().zip(&self.sources) {
            let g = guide as usize;
            let chimeras = -shared.hopping * source * params.library[g] * tables.burst_zero;
            of_chimeras += chimeras;
            for (k, rest) in ks.indices().zip(&mut self.rest) {
                let ambient = tables.exposures[k] * params.share[g];
                let zero = -shared.ambient_size * ln_1p(ambient / shared.ambient_size)
                    - shared.clumping * ambient * tables.burst_zero;
                *rest -= zero;
                self.zeros.push(zero + chimeras);
            }
        }
        of_chimeras
    }

    /// Masses of background and signal of a count.
    fn masses(
        &mut self,
        params: &Params,
        tables: &Tables,
        (at, g, y): (usize, usize, f64),
        grade: Grade,
    ) -> f64 {
        let shared = &params.shared;
        let (a, r) = (shared.ambient_size, shared.signal_size);
        let (ks, ls) = (self.place.exposure, self.place.capture);
        let n_k = ks.len();
        let y = y.min(MOST_UMIS);
        let n = y as usize;
        let (hidden, rate) = (&tables.signal.hidden[g * CAPTURES.n..], &tables.signal.rate[g * CAPTURES.n..]);
        let mut span = Span {
            back: self.back.len(),
            fore: self.fore.len(),
            signal: self.signal.len(),
            factor: self.factor.len(),
            rows: 1,
            scale: 1.0,
        };

        // hidden s_y = hidden rate^y Gamma(r + y) / (Gamma(r) y!); by logarithms where the last factor is beyond doubles.
        let s = &mut self.s;
        let rise = tables.signal.ln_rise_of(y);
        let by_ln = rise > LARGE_LN;
        let masses = |s: &mut Vec<f64>, i: f64, rise: f64| {
            s.clear();
            if by_ln {
                s.extend(ls.indices().map(|l| (hidden[l].ln() + i * rate[l].ln() + rise).exp()));
            } else {
                let rise = rise.exp();
                if i == 1.0 {
                    s.extend(ls.indices().map(|l| hidden[l] * rise * rate[l]));
                } else {
                    s.extend(ls.indices().map(|l| hidden[l] * rise * rate[l].powi(i as i32)));
                }
            }
        };
        masses(s, y, rise);
        // From there each mass is had from the one before, unless those of many UMIs underflow.
        let smallest = s.iter().copied().fold(f64::INFINITY, f64::min);
        let mut last_rise = rise;
        self.ratio.clear();
        self.ratio.extend(ls.indices().map(|l| 1.0 / rate[l]));
        let largest = |s: &[f64]| s.iter().copied().fold(0.0, f64::max);
        // Bursts come from larger counts of the cell and from the soup.
        let chimeras = shared.hopping * self.sources[at] * params.library[g];
        let back = &mut self.background;
        back.start(a, shared.burst / (1.0 + shared.burst));
        for k in ks.indices() {
            let ambient = tables.exposures[k] * params.share[g];
            let clumped = shared.clumping * ambient;
            back.bursts.push((chimeras + clumped) / shared.burst);
            back.theta.push(ambient / (a + ambient));
            back.of_soup.push(a / (a + ambient));
            back.of_burst_umis.push(tables.burst_zero * clumped / (chimeras + clumped));
        }
        back.none(n_k);
        if self.is_far {
            back.ln_scale.extend_from_slice(&self.zeros[at * n_k..][..n_k]);
        }
        self.back.extend_from_slice(&back.mass);
        self.soup.resize(self.soup.len() + n_k, 0.0);
        self.fore.extend_from_slice(s);
        self.signal.push(y);
        let mut sum = largest(s);
        let tiny = grade.tiny;
        // The last row is that of `anchor`; j is the next to be shared out.
        let (mut anchor, mut j, mut ended) = (0, 1, false);
        while anchor + 1 < n {
            let i = (n - anchor) as f64;
            let mut width = 1;
            if anchor >= ONE_BY_ONE && n > MULTIPLIED {
                width = ((GROUP * (i + i * i / r).sqrt().min(i)) as usize).clamp(1, n - 1 - anchor);
            }
            let next = anchor + width;
            let start = self.back.len();
            self.back.resize(start + n_k, 0.0);
            self.soup.resize(start + n_k, 0.0);
            while j <= next {
                back.step(j);
                back.scale_down(&mut self.back[span.back..], &mut self.soup[span.back..]);
                let part = (j - anchor) as f64 / width as f64;
                for k in 0..n_k {
                    let (mass, soup) = (back.mass[k], back.soup(j, k));
                    self.back[start + k] += part * mass;
                    self.soup[start + k] += part * soup;
                    if width > 1 {
                        self.back[start - n_k + k] += (1.0 - part) * mass;
                        self.soup[start - n_k + k] += (1.0 - part) * soup;
                    }
                }
                j += 1;
            }
            let to = y - next as f64;
            let next_rise = tables.signal.ln_rise_of(to);
            if smallest > SAFE {
                let ratio = (next_rise - last_rise).exp();
                s.iter_mut().zip(&self.ratio).for_each(|(s, by)| *s *= ratio * by.powi(width as i32));
            } else {
                masses(s, to, next_rise);
            }
            last_rise = next_rise;
            self.fore.extend_from_slice(s);
            self.signal.push(to);
            span.rows += 1;
            anchor = next;
            let term = largest(&self.back[start..]) * largest(s);
            sum += term;
            if term < tiny * sum && j > 3 && !self.is_far {
                ended = j < n;
                break;
            }
        }
        // b_y.
        if !ended || n <= MULTIPLIED || self.is_far {
            for j in j..=n {
                back.step(j);
                back.scale_down(&mut self.back[span.back..], &mut self.soup[span.back..]);
            }
            self.back.extend_from_slice(&back.mass);
            self.soup.extend((0..n_k).map(|k| back.soup(n, k)));
        } else if grade.is_final || back.could_be(n, j - 1) > NOTHING * sum {
            let reached = back.go_on(j, n);
            for k in 0..n_k {
                // Further out each mass is about the same share of the one before.
                let share = back.mass[k] / back.before[k].max(f64::MIN_POSITIVE);
                let mass = back.mass[k] * (share.min(1.0).ln() * (n - reached) as f64).exp();
                self.back.push(mass);
                self.soup.push(y / reached as f64 * back.soup(reached, k) / back.mass[k].max(f64::MIN_POSITIVE) * mass);
            }
        } else {
            self.back.resize(self.back.len() + n_k, 0.0);
            self.soup.resize(self.soup.len() + n_k, 0.0);
        }
        if self.is_far {
            for k in 0..n_k {
                let by = back.ln_scale[k].exp();
                for at in (span.back + k..self.back.len()).step_by(n_k) {
                    self.back[at] *= by;
                    self.soup[at] *= by;
                }
            }
            let rows = self.back[span.back..].chunks_exact(n_k).zip(self.fore[span.fore..].chunks_exact(ls.len()));
            sum = rows.map(|(b, s)| largest(b) * largest(s)).sum();
        }
        let most = sum + largest(&self.back[self.back.len() - n_k..]);
        let most = most.clamp(f64::MIN_POSITIVE, f64::MAX);
        span.scale = 1.0 / most;
        self.spans.push(span);
        most
    }

    /// F of the last count at each pair of nodes, over its bound, into the weights.
    fn multiply(&mut self, n_k: usize, n_l: usize) {
        let Some(&span) = self.spans.last() else { return };
        let by = span.scale;
        let last = &self.back[span.back + span.rows * n_k..][..n_k];
        let start = self.factor.len();
        self.factor.resize(start + n_k * n_l, 0.0);
        let rows = self.factor[start..].chunks_exact_mut(n_k).zip(self.weight.chunks_exact_mut(n_k));
        let back = &self.back[span.back..];
        for (l, (factor, weight)) in rows.enumerate() {
            let s = |j: usize| self.fore[span.fore + j * n_l + l];
            if span.rows == 1 {
                let s = s(0);
                for (f, b) in factor.iter_mut().zip(last) {
                    *f = b + s;
                }
            } else {
                let (s0, s1) = (s(0), s(1));
                for (f, (b, one)) in factor.iter_mut().zip(last.iter().zip(&back[n_k..2 * n_k])) {
                    *f = b + s0 + one * s1;
                }
                for j in 2..span.rows {
                    let s = s(j);
                    for (f, b) in factor.iter_mut().zip(&back[j * n_k..(j + 1) * n_k]) {
                        *f += b * s;
                    }
                }
            }
            for (f, w) in factor.iter_mut().zip(weight) {
                *f = (*f * by).max(1e-290);
                *w *= *f;
            }
        }
        self.empty.iter_mut().zip(last).for_each(|(w, b)| *w *= b * by);
    }

    /// The posterior of each stored count.
    pub fn pairs(&self, tables: &Tables, counts: Counts, mut f: impl FnMut(Pair)) {
        let (ls, n_k) = (self.place.capture, self.place.exposure.len());
        for (span, &guide) in self.spans.iter().zip(counts.guides) {
            let hidden = &tables.signal.hidden[guide as usize * CAPTURES.n..];
            let last = &self.back[span.back + span.rows * n_k..][..n_k];
            let (mut not, mut carried) = (0.0, 0.0);
            for (i, l) in ls.indices().enumerate() {
                let weight = &self.weight[i * n_k..][..n_k];
                let factor = &self.factor[span.factor + i * n_k..][..n_k];
                let mut of_last = 0.0;
                for k in 0..n_k {
                    // Of F, what is b_y.
                    of_last += weight[k] * (last[k] * span.scale / factor[k]).min(1.0);
                }
                let all: f64 = weight.iter().sum();
                not += of_last * (1.0 - hidden[l]);
                carried += (all - of_last).max(0.0) + of_last * hidden[l];
            }
            // Where the empty set is unlikelier than independent guides make it, this cancels.
            let not = (not + self.none).max(1e-15 * self.none.abs());
            let ln_odds = (carried.max(f64::MIN_POSITIVE).ln() - not.max(f64::MIN_POSITIVE).ln())
                .clamp(-MOST_LN_ODDS, MOST_LN_ODDS);
            f(Pair { carried: carried / (carried + not).max(f64::MIN_POSITIVE), ln_odds });
        }
    }

    /// What each stored count says of its guide.
    pub fn lessons(&mut self, tables: &Tables, counts: Counts, mut f: impl FnMut(usize, Lesson)) {
        let ls = self.place.capture;
        let (n_k, n_l) = (self.place.exposure.len(), ls.len());
        let mut ratio = std::mem::take(&mut self.ratio);
        for (span, &guide) in self.spans.iter().zip(counts.guides) {
            let g = guide as usize;
            let (hidden, rate) = (&tables.signal.hidden[g * CAPTURES.n..], &tables.signal.rate[g * CAPTURES.n..]);
            let last = &self.back[span.back + span.rows * n_k..][..n_k];
            let of_last = &self.soup[span.back + span.rows * n_k..][..n_k];
            let mut lesson = Lesson::default();
            for k in 0..n_k {
                if last[k] > 0.0 {
                    lesson.soup += self.beyond * self.empty[k] / last[k] * of_last[k];
                }
            }
            for (i, l) in ls.indices().enumerate() {
                let weight = &self.weight[i * n_k..][..n_k];
                let factor = &self.factor[span.factor + i * n_k..][..n_k];
                ratio.clear();
                ratio.extend(weight.iter().zip(factor).map(|(w, f)| w * span.scale / f));
                let (mut sum, mut soup) = (0.0, 0.0);
                for k in 0..n_k {
                    sum += ratio[k] * last[k];
                    soup += ratio[k] * of_last[k];
                }
                let (mut carried, mut signal) = (hidden[l] * sum, 0.0);
                for j in 0..span.rows {
                    let s = self.fore[span.fore + j * n_l + i];
                    let back = &self.back[span.back + j * n_k..][..n_k];
                    let of_soup = &self.soup[span.back + j * n_k..][..n_k];
                    let (mut sum, mut of_row) = (0.0, 0.0);
                    for k in 0..n_k {
                        sum += ratio[k] * back[k];
                        of_row += ratio[k] * of_soup[k];
                    }
                    carried += s * sum;
                    signal += s * sum * self.signal[span.signal + j];
                    soup += s * of_row;
                }
                let less = 1.0 - rate[l];
                let zero = self.of_capture[i] * hidden[l];
                lesson.carried += carried;
                lesson.soup += soup;
                lesson.signal += signal * less;
                lesson.captured += carried * tables.captures[l] * less;
                lesson.hidden += zero;
                lesson.hidden_captured += zero * tables.captures[l] * less;
            }
            f(g, lesson);
        }
        self.ratio = ratio;
    }
}

/// Nodes that suit this posterior better, or the same ones; and whether these do not do.
fn better(mass: &[f64], nodes: Nodes, range: (usize, usize), grade: Grade) -> (Nodes, bool) {
    let Grade { apart, matters, ends, .. } = grade;
    let all: f64 = mass.iter().sum();
    if !(all > 0.0 && all.is_finite()) {
        return (Nodes::covering(range, MOST_NODES), true);
    }
    let at = |i: usize| nodes.at(i) as f64;
    let stride = nodes.stride as usize;
    let mean = mass.iter().enumerate().map(|(i, m)| m * at(i)).sum::<f64>() / all;
    let variance = mass.iter().enumerate().map(|(i, m)| m * (at(i) - mean).powi(2)).sum::<f64>() / all;
    let first = mass.iter().position(|&m| m > matters * all).unwrap_or(0);
    let last = mass.iter().rposition(|&m| m > matters * all).unwrap_or(mass.len() - 1);
    // Less what a wide stride blurs.
    let blur = (stride * stride - 1) as f64 / 12.0;
    let sd = (variance - blur).max(variance / 8.0).max(0.0).sqrt();
    let wanted = ((apart * sd) as usize).max(1);
    let open = (nodes.at(0) > range.0 + stride / 2, nodes.at(nodes.len() - 1) + stride / 2 + 1 < range.1);
    let is_cut_off = open.0 && mass[0] > ends * all || open.1 && mass[mass.len() - 1] > ends * all;
    let is_wide = first + (mass.len() - 1 - last) > 3 || (0.9 * apart * sd >= (stride + 1) as f64 && mass.len() > 9);
    let is_short = stride > wanted || is_cut_off;
    if !is_short && !is_wide {
        return (nodes, false);
    }
    let reach = stride / 2 + if is_cut_off { stride + 1 } else { 0 };
    let from = nodes.at(first).saturating_sub(reach).max(range.0);
    let to = (nodes.at(last) + reach + 1).min(range.1);
    let stride = wanted.max((to - from).div_ceil(MOST_NODES));
    (Nodes::with_stride((from, to), stride), is_short)
}

/// Masses of 0, 1, 2, ... background UMIs over that of none, at each node of exposure: the sum of two negative binomials, of
/// ambient and of chimeric UMIs. With A, M their sizes and t, w the rates at which their masses fall off,
/// j b_j = A u_j + M v_j, where u_j = t (b_{j-1} + u_{j-1}) and v_j = w (b_{j-1} + v_{j-1}); A u_j is b_j times the ambient UMIs
/// expected among the j.
#[derive(Default)]
struct Background {
    size: f64,
    bursts: Vec<f64>,
    of_burst: f64,
    theta: Vec<f64>,
    /// What an ambient UMI outside of bursts counts as; and a UMI of a burst: bursts of ambient UMIs per UMI.
    of_soup: Vec<f64>,
    of_burst_umis: Vec<f64>,
    u: Vec<f64>,
    v: Vec<f64>,
    mass: Vec<f64>,
    before: Vec<f64>,
    /// Logarithms of what masses are over, by node, where they are large.
    ln_scale: Vec<f64>,
}

impl Background {
    fn start(&mut self, size: f64, of_burst: f64) {
        (self.size, self.of_burst) = (size, of_burst);
        let lists = [&mut self.theta, &mut self.bursts, &mut self.of_soup, &mut self.of_burst_umis, &mut self.ln_scale];
        lists.into_iter().for_each(Vec::clear);
    }

    fn none(&mut self, n_k: usize) {
        for (values, value) in [(&mut self.u, 0.0), (&mut self.v, 0.0), (&mut self.mass, 1.0)] {
            values.clear();
            values.resize(n_k, value);
        }
    }

    /// To j from j - 1.
    fn step(&mut self, j: usize) {
        let by = 1.0 / j as f64;
        let rows =
            self.u.iter_mut().zip(&mut self.v).zip(self.mass.iter_mut().zip(self.theta.iter().zip(&self.bursts)));
        for ((u, v), (mass, (theta, bursts))) in rows {
            *u = theta * (*mass + *u);
            *v = self.of_burst * (*mass + *v);
            *mass = (self.size * *u + bursts * *v) * by;
        }
    }

    /// Keeps masses in the range of doubles, where they have a scale, together with the rows before.
    fn scale_down(&mut self, rows: &mut [f64], soup: &mut [f64]) {
        let n_k = self.mass.len();
        for k in 0..self.ln_scale.len() {
            if self.mass[k] > LARGE {
                for value in [&mut self.mass[k], &mut self.u[k], &mut self.v[k]] {
                    *value /= LARGE;
                }
                self.ln_scale[k] += LARGE.ln();
                for rows in [&mut *rows, &mut *soup] {
                    rows.iter_mut().skip(k).step_by(n_k).for_each(|value| *value /= LARGE);
                }
            }
        }
    }

    /// The mass of j times what it says of the soup; the UMIs of a burst are taken as those of an average one.
    fn soup(&self, j: usize, k: usize) -> f64 {
        let alone = self.size * self.u[k];
        alone * self.of_soup[k] + (j as f64 * self.mass[k] - alone).max(0.0) * self.of_burst_umis[k]
    }

    /// A guess, rather too high, of the mass at n, from that at j.
    fn could_be(&self, n: usize, j: usize) -> f64 {
        let next = |k: usize| (self.theta[k] * (1.0 + self.size / j as f64)).max(self.of_burst).min(1.0);
        (0..self.mass.len()).map(|k| self.mass[k] * next(k).powi((n - j) as i32)).fold(0.0, f64::max)
    }

    /// From j on, as far as n or as masses can be told from nothing; returns how far.
    fn go_on(&mut self, mut j: usize, n: usize) -> usize {
        loop {
            self.before.clone_from(&self.mass);
            self.step(j);
            if j >= n.min(FAR_OUT) || self.mass.iter().any(|&mass| mass < 1e-250) {
                return j;
            }
            j += 1;
        }
    }
}
