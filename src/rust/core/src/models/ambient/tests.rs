use super::nodes::TRAINING;
use super::params::{Params, Shared};
use super::pass;
use super::sample::Sample;
use super::start;
use super::Ambient;
use crate::counts::GuideCounts;
use crate::fit::Column;
use crate::models::{Control, Model, Scores};
use crate::run::{on_threads, Progress};
use crate::simulate::{simulate, Screen, Simulation};
use crate::special::digamma;
use crate::Result;

/// What a pass learns is the slope of the log-likelihood (Fisher's identity), for parameters of every kind.
#[test]
fn sums_are_slopes_of_the_log_likelihood() {
    for (name, weight) in [("noisy", 0.3), ("easy", 1.0), ("high_moi", 3.0)] {
        let mut screen = Screen::named(name).unwrap();
        (screen.n_cells, screen.n_guides) = (600, 12);
        on_threads(2, || {
            let progress = Progress::default();
            let sim = simulate(&screen, 5, &progress)?;
            let batch = (0..600).map(|cell| cell % 2).collect();
            let counts = GuideCounts::new(12, &sim.indptr, &sim.guide, &sim.count, Some(batch))?;
            let sample = Sample::new(&counts, 0..600);
            let mut umis = [0.0; 12];
            counts.guides().iter().zip(counts.counts()).for_each(|(&g, y)| umis[g as usize] += y);
            let all: f64 = umis.iter().sum();
            let library: Vec<f64> = umis.iter().map(|u| u / all).collect();
            let carried = |place: usize| {
                let cell = sample.cell(place);
                cell.umis.iter().map(move |&y| f64::from(u8::from(y >= (0.2 * cell.depth).max(2.0))))
            };
            let posterior: Vec<f64> = (0..sample.cells.len()).flat_map(carried).collect();
            let mut params = start::start(&sample, &library, &posterior, &[true; 12], 2);
            params.shared = Shared {
                empty_weight: weight,
                capture_shape: 3.0,
                ambient_size: 4.0,
                hopping: 0.02,
                burst: 0.5,
                // Bursts of the soup teach its shares as if all were of the average size.
                clumping: 1e-4,
                ..params.shared
            };
            let mut places = vec![None; sample.patterns.len()];
            let sums = pass::pass(&params, &sample, &mut places, TRAINING, &progress)?;
            let ln_lik = |change: &dyn Fn(&mut Params)| {
                let mut params = params.clone();
                change(&mut params);
                pass::ln_lik(&params, &sample, &places, 1, None, &progress).unwrap()
            };
            // Nodes that follow the cells jump a little on the way, so the steps are not small.
            let h = 0.1;
            let slope = |change: &dyn Fn(&mut Params, f64)| {
                (ln_lik(&|p| change(p, h)) - ln_lik(&|p| change(p, -h))) / (2.0 * h)
            };
            let n = sums.cells;
            let s = &params.shared;
            let none = params.ln_none().exp();
            let weighted = 1.0 + (s.empty_weight - 1.0) * none;
            let mut checks: Vec<(String, f64, f64)> = vec![];
            for g in [0, 5] {
                let guide = &sums.guides[g];
                let (f, q, pi) = (params.efficiency[g], params.share[g], params.prior[g]);
                checks.push((
                    format!("f{g}"),
                    guide.signal - f * guide.captured,
                    slope(&|p, h| p.efficiency[g] *= h.exp()),
                ));
                let e = super::grid::EXPOSURES.nodes();
                let clumped = s.clumping * s.burst.ln_1p() / s.burst;
                let size = s.ambient_size;
                let reach: f64 =
                    sums.exposures.iter().zip(&e).map(|(n, e)| n * e * (size / (size + e * q) + clumped)).sum();
                checks.push((format!("q{g}"), guide.soup - q * reach, slope(&|p, h| p.share[g] *= h.exp())));
                let of_pi = guide.carriers - (n - guide.carriers) * pi / (1.0 - pi)
                    + n * (s.empty_weight - 1.0) * none / weighted * pi / (1.0 - pi);
                checks.push((format!("pi{g}"), of_pi, slope(&|p, h| p.prior[g] *= h.exp())));
            }
            checks.push((
                "w".into(),
                sums.empty - n * s.empty_weight * none / weighted,
                slope(&|p, h| p.shared.empty_weight *= h.exp()),
            ));
            for b in 0..2 {
                let batch = &sums.batches[b];
                checks.push((
                    format!("A{b}"),
                    s.exposure_shape * (batch.exposure / params.exposure[b] - batch.usual),
                    slope(&|p, h| p.exposure[b] *= h.exp()),
                ));
                checks.push((
                    format!("d{b}"),
                    s.capture_shape * (batch.capture / params.capture[b] - batch.cells),
                    slope(&|p, h| p.capture[b] *= h.exp()),
                ));
            }
            let of_shape = |k: f64, sums: &dyn Fn(usize) -> (f64, f64, f64, f64)| -> f64 {
                (0..2)
                    .map(|b| {
                        let (n, sum, ln, mean) = sums(b);
                        k * (n * (k.ln() + 1.0 - digamma(k) - mean.ln()) - sum / mean + ln)
                    })
                    .sum()
            };
            checks.push((
                "s".into(),
                of_shape(s.exposure_shape, &|b| {
                    let x = &sums.batches[b];
                    (x.usual, x.exposure, x.ln_exposure, params.exposure[b])
                }),
                slope(&|p, h| p.shared.exposure_shape *= h.exp()),
            ));
            checks.push((
                "k".into(),
                of_shape(s.capture_shape, &|b| {
                    let x = &sums.batches[b];
                    (x.cells, x.capture, x.ln_capture, params.capture[b])
                }),
                slope(&|p, h| p.shared.capture_shape *= h.exp()),
            ));
            for (what, learnt, slope) in checks {
                // Priors of exposure and capture are shared out between nodes, all else is exact.
                let exact = !["A", "d", "s", "k"].iter().any(|of_prior| what.starts_with(of_prior));
                let within = if exact { 0.05 * learnt.abs() + 0.6 } else { 0.08 * learnt.abs() + 0.1 * n.sqrt() };
                assert!((learnt - slope).abs() < within, "{name} {what}: {learnt} {slope}");
            }
            Ok(())
        })
        .unwrap();
    }
}

struct Case {
    sim: Simulation,
    scores: Scores,
}

fn score(sim: &Simulation, n_guides: usize, batch: Option<Vec<u32>>) -> Result<Scores> {
    let counts = GuideCounts::new(n_guides, &sim.indptr, &sim.guide, &sim.count, batch)?;
    Ambient.score(&counts, &Control::default(), &Progress::default())
}

fn screen(change: impl Fn(&mut Screen)) -> Case {
    let mut settings = Screen::named("easy").unwrap();
    (settings.n_cells, settings.n_guides) = (2000, 20);
    change(&mut settings);
    on_threads(2, || {
        let sim = simulate(&settings, 3, &Progress::default())?;
        let scores = score(&sim, settings.n_guides, None)?;
        Ok(Case { sim, scores })
    })
    .unwrap()
}

#[test]
fn a_screen_without_carriers_has_no_calls() {
    for size in [f64::INFINITY, 0.5] {
        let Case { scores, .. } = screen(|s| {
            (s.share_empty, s.ambient_mean, s.ambient_size) = (1.0, 5.0, size);
        });
        assert!(scores.score.iter().all(|&p| p < 0.5), "ambient size {size}");
    }
}

#[test]
fn comes_near_the_observer_who_knows_every_parameter() {
    for (name, change) in [
        ("deep ambient", (|s: &mut Screen| (s.ambient_mean, s.ambient_size) = (20.0, 1.5)) as fn(&mut Screen)),
        // Beyond the model before this one.
        ("deeper", |s| (s.ambient_mean, s.ambient_size) = (60.0, 1.5)),
        ("chimeras", |s| s.hopping = 0.1),
        ("rare guides", |s| s.abundance_spread = 1.5),
        ("two guides", |s| (s.n_guides, s.n_cells) = (2, 1000)),
        ("a guide in a cell or two", |s| (s.n_guides, s.n_cells) = (1500, 300)),
    ] {
        let Case { sim, scores } = screen(change);
        let f1 = sim.judge(|k| scores.score[k] >= 0.5).f1();
        assert!(f1 > sim.ceiling() - 0.02, "{name}: {f1} of {}", sim.ceiling());
    }
}

/// A label that means nothing changes nearly nothing.
#[test]
fn random_batches_do_no_harm() {
    for (name, batches) in [("easy", 2), ("noisy", 3), ("high_moi", 5)] {
        let mut settings = Screen::named(name).unwrap();
        (settings.n_cells, settings.n_guides) = (1500, 25);
        on_threads(2, || {
            let sim = simulate(&settings, 8, &Progress::default())?;
            let (alone, labelled) = (
                score(&sim, 25, None)?,
                score(&sim, 25, Some((0..1500).map(|c| (c * 7 + c / 11) % batches).collect()))?,
            );
            let f1 = |scores: &Scores| sim.judge(|k| scores.score[k] >= 0.5).f1();
            assert!(
                f1(&alone) > 0.8 && (f1(&alone) - f1(&labelled)).abs() < 0.005,
                "{name}: {} {}",
                f1(&alone),
                f1(&labelled)
            );
            Ok(())
        })
        .unwrap();
    }
}

/// Cells without a guide UMI, taken out or added, change nothing at all.
#[test]
fn cells_without_umis_change_nothing() {
    let mut settings = Screen::named("noisy").unwrap();
    (settings.n_cells, settings.n_guides, settings.ambient_mean) = (1500, 25, 0.5);
    on_threads(2, || {
        let sim = simulate(&settings, 8, &Progress::default())?;
        let mut indptr: Vec<i32> = sim.indptr.clone();
        let without = indptr.windows(2).filter(|w| w[0] == w[1]).count();
        indptr.dedup();
        assert!(without > 50, "{without}");
        let more: Vec<i32> = sim.indptr.iter().flat_map(|&at| [at, at]).skip(1).collect();
        let scores = score(&sim, 25, None)?;
        assert!(scores.score.iter().filter(|&&p| p > 0.9).count() > 300);
        for indptr in [indptr, more] {
            assert_eq!(score(&Simulation { indptr, ..sim.clone() }, 25, None)?.score, scores.score);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_covariate_helps_where_it_drives_the_exposure_and_harms_nowhere() {
    let mut settings = Screen::named("easy").unwrap();
    (settings.n_cells, settings.n_guides) = (3000, 6);
    (settings.ambient_mean, settings.ambient_size, settings.ambient_cell_size) = (3.0, f64::INFINITY, 0.5);
    (settings.signal_mean, settings.capture_spread) = (6.0, 0.0);
    on_threads(2, || {
        let sim = simulate(&settings, 5, &Progress::default())?;
        let f1 = |covariate: Option<&[f64]>| -> Result<(f64, f64)> {
            let mut counts = GuideCounts::new(settings.n_guides, &sim.indptr, &sim.guide, &sim.count, None)?;
            if let Some(x) = covariate {
                counts = counts.with_covariate(x)?;
            }
            let scores = Ambient.score(&counts, &Control::default(), &Progress::default())?;
            let slope = scores.screen.iter().find(|(name, _)| name == "exposure_slope");
            let slope = match slope {
                Some((_, Column::Real(value))) => value[0],
                _ => f64::NAN,
            };
            Ok((sim.judge(|k| scores.score[k] >= 0.5).f1(), slope))
        };
        // The square of the exposure, so that the slope to find is 1/2; and that of other cells.
        let exposure: Vec<f64> = sim.cells.iter().map(|cell| cell.ambient.max(1e-3).powi(2)).collect();
        let mut other = exposure.clone();
        other.rotate_left(1234);
        let (alone, told, misled) = (f1(None)?, f1(Some(&exposure))?, f1(Some(&other))?);
        assert!(alone.1.is_nan() && misled.1 < 0.05 && (told.1 - 0.5).abs() < 0.1, "{alone:?} {told:?} {misled:?}");
        assert!(told.0 > alone.0 + 0.003, "{alone:?} {told:?}");
        assert!((misled.0 - alone.0).abs() < 0.004, "{alone:?} {misled:?}");
        Ok(())
    })
    .unwrap();
}
