//! Nanoseconds per item of the kernels, one thread and two.
//!
//!     cargo bench -p kaichi-core                        the simulated screen of 200,000 cells x 1,000 guides
//!     cargo bench -p kaichi-core -- FILE.h5ad           the reading of a file, too
//!
//! A plain main rather than criterion: criterion would add some fifty crates to Cargo.lock, and so to the vendored archive
//! and to the exact pins of the MSRV, to do what the least of a few runs does here.
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use kaichi_core::counts::{first_bad_count, GuideCounts};
use kaichi_core::decide::{decide, set_probability, Cut, Rule};
use kaichi_core::diagnose::diagnose;
use kaichi_core::io::{self, ReadOptions};
use kaichi_core::models::{self, Control};
use kaichi_core::run::{on_threads, Progress};
use kaichi_core::simulate::{simulate, Screen};
use kaichi_core::{special, Result};

/// Runs until a second is over, three times at least, and prints the least time per item.
fn time<T>(what: &str, items: usize, mut f: impl FnMut() -> T) {
    let start = Instant::now();
    let (mut least, mut runs) = (Duration::MAX, 0);
    while runs < 3 || start.elapsed() < Duration::from_secs(1) {
        let begin = Instant::now();
        black_box(f());
        least = least.min(begin.elapsed());
        runs += 1;
    }
    let each = least.as_nanos() as f64 / items as f64;
    println!("{what:<44} {each:>10.2} ns/item {:>10.2} ms", least.as_secs_f64() * 1e3);
}

fn special_functions() {
    let x: Vec<f64> = (0..10_000).map(|i| -8.0 + i as f64 * 16e-4).collect();
    let each = |what: &str, f: fn(f64) -> f64| time(what, x.len(), || x.iter().map(|&x| f(x)).sum::<f64>());
    each("ln_normal_density", special::ln_normal_density);
    each("ln_normal_cdf", special::ln_normal_cdf);
    each("normal_interval, width 0.1", |x| special::normal_interval(x, x + 0.1, f64::ln(0.1)).0);
    each("trigamma", |x| special::trigamma(x.abs() + 0.1));
    each("ln_sum_exp of two", |x| special::ln_sum_exp(&[x, -x]));
    each("ln_gamma (statrs)", |x| statrs::function::gamma::ln_gamma(x.abs() + 0.1));
}

fn views(indptr: &[i32], guides: &[i32], y: &[f64], n_guides: usize) -> Result<()> {
    let new = || GuideCounts::new(n_guides, indptr, guides, y, None);
    time("GuideCounts::new, per count", y.len(), new);
    time("first_bad_count, per count", y.len(), || first_bad_count(y));
    time("GuideCounts::new and by_guide, per count", y.len(), || new().map(|counts| counts.by_guide().n_cells(0)));
    let counts = new()?;
    time("cells_per_guide, per count", y.len(), || counts.cells_per_guide());
    let score: Vec<f64> = y.iter().map(|y| (y / (y + 5.0)).min(1.0)).collect();
    counts.by_guide();
    for cut in [Cut::MinConfidence(0.5), Cut::TopShare(0.05), Cut::Fdr(0.05), Cut::FdrPerGuide(0.05)] {
        let rule = Rule { cut, min_umi: 0.0 };
        time(&format!("decide by {}, per count", cut.name()), y.len(), || decide(&counts, &score, &rule));
    }
    let calls = decide(&counts, &score, &Rule { cut: Cut::MinConfidence(0.5), min_umi: 0.0 })?;
    time("set_probability, per count", y.len(), || set_probability(&counts, &score, &calls));
    time("diagnose, per count", y.len(), || diagnose(&counts, &score, &calls, true, &[]));
    Ok(())
}

/// A fit of one guide that half of the cells with UMIs carry; also the price of one fit of many.
fn fits(indptr: &[i32], guides: &[i32], y: &[f64], n_guides: usize) -> Result<()> {
    let n_cells = 10_000i32;
    let p: Vec<i32> = (0..=n_cells).map(|cell| cell.min(2_000)).collect();
    let one: Vec<f64> =
        (0..2_000).map(|cell| f64::from(if cell % 2 == 0 { 1 + cell % 3 } else { 20 + cell % 61 })).collect();
    let zeros = vec![0; one.len()];
    let single = GuideCounts::new(1, &p, &zeros, &one, None)?;
    let all = GuideCounts::new(n_guides, indptr, guides, y, None)?;
    all.by_guide();
    for name in ["gauss", "poisson_gauss"] {
        let model = models::find(name)?;
        let score = |counts: &GuideCounts| model.score(counts, &Control::default(), &Progress::default());
        time(&format!("{name}, one fit of 2,000 of 10,000 cells"), 1, || score(&single));
        time(&format!("{name}, all guides, per fit"), n_guides, || score(&all));
    }
    Ok(())
}

fn main() -> Result<()> {
    let path = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    println!("special functions");
    special_functions();
    let mut screen = Screen::named("easy")?;
    for (name, value) in [("n_cells", 200_000.0), ("n_guides", 1_000.0), ("ambient_mean", 6.5)] {
        screen.set(name, &[value])?;
    }
    let sim = simulate(&screen, 1, &Progress::default())?;
    for threads in [1, 2] {
        println!("\n{threads} thread(s), {} counts of {} cells", sim.count.len(), sim.indptr.len() - 1);
        on_threads(threads, || {
            views(&sim.indptr, &sim.guide, &sim.count, screen.n_guides)?;
            fits(&sim.indptr, &sim.guide, &sim.count, screen.n_guides)
        })?;
    }
    if let Some(path) = path {
        let n = io::read(Path::new(&path), &ReadOptions::default())?.counts.len();
        println!("\n{path}");
        time("read, per count", n, || io::read(Path::new(&path), &ReadOptions::default()));
    }
    Ok(())
}
