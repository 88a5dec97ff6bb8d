//! Exposure and capture on geometric grids, and what a gamma puts on their nodes.
use crate::special::ln_gamma;
use statrs::function::gamma::gamma_lr;

/// Nodes `exp(ln_low + i * step)`.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    ln_low: f64,
    step: f64,
    pub n: usize,
}

pub const EXPOSURES: Grid = Grid { ln_low: -5.5, step: 0.1, n: 171 };
pub const CAPTURES: Grid = Grid { ln_low: -6.0, step: 0.12, n: 109 };

impl Grid {
    pub fn ln_at(&self, i: usize) -> f64 {
        self.ln_low + self.step * i as f64
    }

    pub fn nodes(&self) -> Vec<f64> {
        (0..self.n).map(|i| self.ln_at(i).exp()).collect()
    }
}

/// Densities on nodes closer than so many variances of ln x are exact: the error falls as exp(-2 pi^2 / this).
const FINE: f64 = 0.6;

/// A gamma of mean 1: the integral of its distribution function over the logarithm, tabled.
pub struct UnitGamma {
    shape: f64,
    low: f64,
    step: f64,
    /// Distribution function and its integral at each knot.
    knots: Vec<[f64; 2]>,
}

impl UnitGamma {
    const KNOTS: usize = 400;

    pub fn new(shape: f64) -> Self {
        let sd = 1.0 / shape.sqrt();
        let low = (-12.0 * sd - 12.0 / shape).max(-20.0);
        let high = (12.0 * sd + 30.0 / shape).ln_1p();
        let step = (high - low) / (Self::KNOTS - 1) as f64;
        let below = |u: f64| gamma_lr(shape, shape * u.exp());
        let mut knots = Vec::with_capacity(Self::KNOTS);
        let (mut last, mut sum) = (below(low), 0.0);
        knots.push([last, 0.0]);
        for i in 1..Self::KNOTS {
            let u = low + step * i as f64;
            let (middle, here) = (below(u - 0.5 * step), below(u));
            sum += step * (last + 4.0 * middle + here) / 6.0;
            knots.push([here, sum]);
            last = here;
        }
        Self { shape, low, step, knots }
    }

    /// The integral of the distribution function up to `u`, by cubic Hermite interpolation.
    fn integral(&self, u: f64) -> f64 {
        let at = (u - self.low) / self.step;
        if at <= 0.0 {
            return 0.0;
        }
        let last = self.knots.len() - 1;
        if at >= last as f64 {
            return self.knots[last][1] + (u - self.low - self.step * last as f64);
        }
        let knot = at as usize;
        let t = at - knot as f64;
        let ([d0, low], [d1, high]) = (self.knots[knot], self.knots[knot + 1]);
        let s = 1.0 - t;
        s * s * ((1.0 + 2.0 * t) * low + t * self.step * d0) + t * t * ((3.0 - 2.0 * t) * high - s * self.step * d1)
    }

    /// The density at each node times the distance of nodes; where the grid is too coarse for it, [`Self::masses`].
    pub fn densities(&self, grid: &Grid, mean: f64) -> Vec<f64> {
        if self.shape * grid.step * grid.step > FINE {
            return self.masses(grid, mean);
        }
        let k = self.shape;
        let ln_norm = k * k.ln() - ln_gamma(k);
        let at = |i: usize| grid.ln_at(i) - mean.ln();
        let mut mass: Vec<f64> = (0..grid.n).map(|i| grid.step * (ln_norm + k * (at(i) - at(i).exp())).exp()).collect();
        // The nodes at the ends take what lies beyond.
        mass[0] = 0.5 * mass[0] + gamma_lr(k, k * at(0).exp());
        mass[grid.n - 1] = 0.5 * mass[grid.n - 1] + (1.0 - gamma_lr(k, k * at(grid.n - 1).exp())).max(0.0);
        mass
    }

    /// The mass of each node for a gamma of this mean, shared out linearly between neighbours in the logarithm; the
    /// nodes at the ends take what lies beyond.
    pub fn masses(&self, grid: &Grid, mean: f64) -> Vec<f64> {
        let offset = grid.ln_low - mean.ln();
        let at = |i: f64| self.integral(offset + grid.step * i);
        let (mut before, mut here) = (at(0.0) - grid.step * 0.0, at(0.0));
        let mut mass = Vec::with_capacity(grid.n);
        for i in 0..grid.n {
            let next = at(i as f64 + 1.0);
            let from = if i == 0 { 0.0 } else { here - before };
            let to = if i + 1 == grid.n { grid.step } else { next - here };
            mass.push(((to - from) / grid.step).max(0.0));
            (before, here) = (here, next);
        }
        mass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masses_are_a_gamma_of_that_mean() {
        for (shape, mean) in [(0.3, 0.2), (2.0, 5.0), (8.0, 1.0), (300.0, 0.9), (1000.0, 3.3)] {
            let mass = UnitGamma::new(shape).masses(&EXPOSURES, mean);
            let sum: f64 = mass.iter().sum();
            let first: f64 = mass.iter().zip(EXPOSURES.nodes()).map(|(p, e)| p * e).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{shape} {mean}: {sum}");
            // Sharing out between neighbours widens it by less than a twelfth of the square of the step.
            assert!((first / mean - 1.0).abs() < 0.012, "{shape} {mean}: {first}");
        }
    }
}
