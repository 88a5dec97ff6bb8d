//! Which nodes of exposure and capture a cell is summed over.
use super::cell::Counts;
use super::params::Params;
use super::tables::up_to;

/// How exact a look is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grade {
    /// Nodes are so many standard deviations of the posterior apart, at most.
    pub apart: f64,
    /// Nodes with less of the posterior than this are left out; they do if those at the ends have no more than `ends`.
    pub matters: f64,
    pub ends: f64,
    /// The sum of a count ends where a term is less than this of it.
    pub tiny: f64,
    /// Whether posteriors are final: priors by the trapezoid rule; the odds of counts that are certain are worked out, too.
    pub is_final: bool,
    /// Whether the first look is where the posterior of a like cell was: what is found then hangs a little on the order of cells.
    pub guesses: bool,
}

/// What parameters learn from: the error of a sum is about 1e-4.
pub const TRAINING: Grade =
    Grade { apart: 1.4, matters: 1e-5, ends: 1e-4, tiny: 1e-6, is_final: false, guesses: false };
/// The same for cells that are seen once.
pub const SETTLING: Grade = Grade { guesses: true, ..TRAINING };
/// Final posteriors of cells whose counts are all certain, and of others.
pub const WIDE: Grade = Grade { apart: 1.2, matters: 1e-6, ends: 1e-5, tiny: 1e-9, is_final: true, guesses: true };
pub const FINE: Grade = Grade { apart: 0.5, matters: 1e-7, ends: 1e-6, tiny: 1e-9, is_final: true, guesses: true };
/// Counts with less extreme log odds than this are not certain.
pub const CERTAIN: f64 = 6.0;
/// Most nodes of one kind in a look; and looks until the nodes fit.
const MOST_NODES: usize = 64;

/// Every `stride`-th node from `first` on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Nodes {
    first: u16,
    n: u16,
    stride: u16,
}

impl Nodes {
    /// About so many nodes that cover the range.
    pub fn covering((from, to): (usize, usize), about: usize) -> Self {
        Self::with_stride((from, to), (to - from).div_ceil(about).max(1))
    }

    pub fn with_stride((from, to): (usize, usize), stride: usize) -> Self {
        let n = (to - from).div_ceil(stride).max(1);
        // Centred.
        let first = (from + to).saturating_sub((n - 1) * stride) / 2;
        Self { first: first as u16, n: n as u16, stride: stride as u16 }
    }

    pub fn len(&self) -> usize {
        self.n as usize
    }

    pub fn at(&self, i: usize) -> usize {
        self.first as usize + i * self.stride as usize
    }

    pub fn indices(self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(move |i| self.at(i))
    }

    /// What a node stands for, see [`up_to`]: half way to its neighbours; the ends take all that is beyond.
    pub fn range(&self, i: usize, all: usize) -> (usize, usize) {
        let (middle, stride) = (2 * self.at(i) + 1, self.stride as usize);
        let from = if i == 0 { 0 } else { middle - stride };
        let to = if i + 1 == self.len() { 2 * all } else { (middle + stride).min(2 * all) };
        (from.min(to), to)
    }

    /// The prior mass of what a node stands for, from that of each node of the grid and its sums. Where only the fit is at stake, up
    /// to half way to its neighbours, which the M-step counts by; in the end, by the trapezoid rule, which is exact for smooth
    /// integrands.
    pub fn mass<const N: usize>(&self, i: usize, each: &[f64], below: &[[f64; N]], grade: Grade) -> f64 {
        let all = each.len();
        if !grade.is_final {
            let (from, to) = self.range(i, all);
            return up_to(below, to)[0] - up_to(below, from)[0];
        }
        let (at, stride) = (self.at(i), f64::from(self.stride));
        // The ends take all that is beyond.
        let (low, sum) = (up_to(below, 2 * at + 1)[0], below[all][0]);
        match (self.len(), i) {
            (1, _) => sum,
            (_, 0) => low + 0.5 * stride * each[at],
            (n, _) if i + 1 == n => sum - low + 0.5 * stride * each[at],
            _ => stride * each[at],
        }
    }
}

/// Where the posterior of a cell was last found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    pub exposure: Nodes,
    pub capture: Nodes,
}

/// Cells of which one is a good guess for where the posterior of the next lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind {
    class: u32,
    n: u32,
    /// The largest count, over the efficiency of its guide, and the rest of the UMIs, in steps of their logarithms.
    top: i32,
    rest: i32,
}

impl Kind {
    pub fn of(params: &Params, counts: Counts) -> Self {
        let (mut top, mut ratio) = (0.0, 0.0);
        for (&guide, &y) in counts.guides.iter().zip(counts.umis) {
            if y > top {
                (top, ratio) = (y, y / params.efficiency[guide as usize]);
            }
        }
        let step = |x: f64| (4.0 * x.max(1e-9).ln()) as i32;
        let rest = counts.depth - top;
        Self {
            class: counts.class as u32,
            n: (counts.guides.len() as u32).min(12),
            top: step(ratio),
            rest: step(rest + 1.0),
        }
    }
}

/// Nodes that suit this posterior better, or the same ones; and whether these do not do.
pub fn better(mass: &[f64], nodes: Nodes, range: (usize, usize), grade: Grade) -> (Nodes, bool) {
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
