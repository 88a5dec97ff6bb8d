//! Fuzzing of the readers.
//!
//! ```text
//! kaichi-fuzz <reader> <seconds> <folder for finds> <seed file>...
//! kaichi-fuzz <reader> case <number> <file to make> <seed file>...
//! ```
//!
//! Half of the cases are seed files with changed bytes, half are made by HDF5 itself, valid but with wrong contents (`structure`).
//! A case is told by its number alone. A worker process reads one after the other, so that a crash, a hang (10 s) or too much
//! memory costs only that process; what it was reading goes into the folder.
mod random;
mod structure;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kaichi_core::io::{h5ad, GuideFile};
use kaichi_core::run::on_threads;

use random::Random;

struct Reader {
    name: &'static str,
    read: fn(&Path) -> kaichi_core::Result<GuideFile>,
    /// What HDF5 makes of a number; none where the format is no HDF5.
    structure: Option<fn(&mut Random, &Path) -> hdf5::Result<()>>,
}

/// A new reader is one line.
const READERS: &[Reader] =
    &[Reader { name: "h5ad", read: |path| h5ad::read(path, None, Some("lane")), structure: Some(structure::h5ad) }];

/// Bytes that a reader may take beyond four times the file: threads, HDF5's buffers, and what its code takes at first use.
const FREE: u64 = 96 << 20;
const HANG: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [reader, task, rest @ ..] = &arguments[..] else { return usage() };
    let Some(reader) = READERS.iter().find(|known| known.name == reader) else { return usage() };
    match (task.as_str(), rest) {
        ("case", [number, file, seeds @ ..]) => {
            let Ok(number) = number.parse() else { return usage() };
            make(reader, number, Path::new(file), &load(seeds));
            ExitCode::SUCCESS
        }
        ("work", [first, file, seeds @ ..]) => {
            let Ok(first) = first.parse() else { return usage() };
            work(reader, first, Path::new(file), &load(seeds))
        }
        (seconds, [folder, seeds @ ..]) => {
            let Ok(seconds) = seconds.parse() else { return usage() };
            supervise(reader, Duration::from_secs(seconds), Path::new(folder), seeds)
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    let names: Vec<&str> = READERS.iter().map(|reader| reader.name).collect();
    eprintln!("kaichi-fuzz <reader> <seconds> <folder for finds> <seed file>...\nReaders: {}", names.join(", "));
    ExitCode::from(2)
}

fn load(seeds: &[String]) -> Vec<Vec<u8>> {
    let seeds: Vec<Vec<u8>> = seeds.iter().filter_map(|seed| std::fs::read(seed).ok()).collect();
    assert!(!seeds.is_empty(), "there is no seed file that can be read");
    seeds
}

/// Writes the case of that number.
fn make(reader: &Reader, number: u64, file: &Path, seeds: &[Vec<u8>]) {
    let random = &mut Random::new(number);
    if let Some(structure) = reader.structure.filter(|_| number % 2 == 1) {
        // Wrong contents that HDF5 refuses to write are a smaller file.
        let _ = structure(random, file);
        return;
    }
    let mut bytes = random.one_of(seeds).clone();
    for _ in 0..1 + random.below(8) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = *random.one_of(&[0, 1, 0x7f, 0x80, 0xff]),
            3 => {
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill(*random.one_of(&[0, 0xff]));
            }
            4 => {
                let (from, n) = (random.below(bytes.len()), 1 + random.below(64));
                let n = n.min(bytes.len() - at).min(bytes.len() - from);
                bytes.copy_within(from..from + n, at);
            }
            5 => drop(bytes.remove(at)),
            6 => bytes.insert(at, random.below(256) as u8),
            _ => {
                let end = (at + 4).min(bytes.len());
                let number = (random.below(1 << 20) as u32).to_le_bytes();
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
        }
    }
    let _ = std::fs::write(file, bytes);
}

/// Reads case after case, saying the number of each before it starts. A wrong result ends the process.
fn work(reader: &Reader, first: u64, file: &Path, seeds: &[Vec<u8>]) -> ExitCode {
    let mut out = std::io::stdout();
    // Fixed costs are no case's.
    let _ = std::fs::write(file, &seeds[0]);
    let _ = on_threads(2, || (reader.read)(file));
    for number in first.. {
        make(reader, number, file, seeds);
        if writeln!(out, "{number}").and_then(|()| out.flush()).is_err() {
            break;
        }
        let size = std::fs::metadata(file).map_or(0, |file| file.len());
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let before = memory("VmRSS:");
        let wrong = match on_threads(2, || (reader.read)(file)) {
            Ok(read) => check(&read).err(),
            Err(kaichi_core::Error::Internal(text)) => Some(format!("internal error: {text}")),
            Err(_) => None,
        };
        let taken = memory("VmHWM:").saturating_sub(before);
        let wrong = wrong.or_else(|| {
            (taken > FREE + 4 * size).then(|| format!("{} MB of memory for a file of {size} bytes", taken >> 20))
        });
        if let Some(wrong) = wrong {
            let _ = writeln!(out, "wrong: {wrong}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A line of /proc/self/status in bytes; 0 where there is none.
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// What holds for all that a reader gives.
fn check(read: &GuideFile) -> Result<(), String> {
    let holds = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("accepted, but {what}")) };
    let (cells, guides) = (read.cell_names.len(), read.guide_names.len());
    holds(cells > 0 && guides > 0, "there are no cells or guides")?;
    holds(read.indptr.len() == cells + 1 && read.indptr[0] == 0, "rows are not as many as cells")?;
    holds(read.indptr.is_sorted(), "rows end before they start")?;
    holds(
        read.indptr[cells] as usize == read.counts.len() && read.guides.len() == read.counts.len(),
        "lengths differ",
    )?;
    for row in read.indptr.windows(2) {
        let row = &read.guides[row[0] as usize..row[1] as usize];
        holds(row.windows(2).all(|pair| pair[0] < pair[1]), "guides of a cell are not sorted")?;
        holds(row.iter().all(|&guide| guide >= 0 && (guide as usize) < guides), "a guide is none")?;
    }
    let is_count = |&count: &f64| count > 0.0 && count <= f64::from(i32::MAX) && count.fract() == 0.0;
    holds(read.counts.iter().all(is_count), "a count is none")?;
    for names in [&read.cell_names, &read.guide_names] {
        let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        holds(!sorted[0].is_empty() && sorted.windows(2).all(|pair| pair[0] != pair[1]), "names are empty or the same")?;
    }
    holds(read.batch.as_ref().is_none_or(|batch| batch.len() == cells), "batches are not as many as cells")
}

fn supervise(reader: &Reader, time: Duration, folder: &Path, seeds: &[String]) -> ExitCode {
    let (Ok(program), Ok(())) = (std::env::current_exe(), std::fs::create_dir_all(folder)) else {
        eprintln!("{} cannot be made", folder.display());
        return ExitCode::from(2);
    };
    let file: PathBuf = folder.join(format!("current-{}", std::process::id()));
    let start = Instant::now();
    // Another part of the numbers in each run.
    let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let (mut number, mut cases, mut finds) = (clock << 24, 0u64, 0u64);
    while start.elapsed() < time {
        let mut worker = Command::new(&program);
        worker.args([reader.name, "work", &number.to_string()]).arg(&file).args(seeds);
        let Ok(mut worker) = worker.stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
            return ExitCode::from(2);
        };
        let Some(said) = worker.stdout.take() else { return ExitCode::from(2) };
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(said).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let mut wrong = None;
        let why = loop {
            match lines.recv_timeout(HANG) {
                Ok(line) => match line.strip_prefix("wrong: ") {
                    Some(text) => wrong = Some(text.to_owned()),
                    None => {
                        number = line.parse().unwrap_or(number);
                        cases += 1;
                        if start.elapsed() >= time {
                            break None;
                        }
                    }
                },
                Err(mpsc::RecvTimeoutError::Timeout) => break Some("a hang".to_owned()),
                Err(mpsc::RecvTimeoutError::Disconnected) => break Some(String::new()),
            }
        };
        let _ = worker.kill();
        let ended = worker.wait();
        let Some(why) = why else { break };
        let why = match (wrong, ended) {
            (Some(wrong), _) => wrong,
            (None, Ok(status)) if why.is_empty() => format!("the process ended: {status}"),
            _ => why,
        };
        finds += 1;
        println!("case {number}: {why}");
        let _ = std::fs::copy(&file, folder.join(format!("{}-{number}", reader.name)));
        number += 1;
    }
    let _ = std::fs::remove_file(&file);
    println!("{}: {cases} cases in {} s, {finds} finds", reader.name, start.elapsed().as_secs());
    if finds == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
