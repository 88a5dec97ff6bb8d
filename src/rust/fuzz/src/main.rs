//! Fuzzing of the readers.
//!
//! ```text
//! kaichi-fuzz <reader> <seconds> <folder for finds> <seed file>...
//! kaichi-fuzz <reader> smoke <cases> <folder for finds>
//! kaichi-fuzz <reader> case <number> <file to make> <seed file>...
//! kaichi-fuzz <reader> read <file>
//! ```
//!
//! With seed files, half of the cases are those with changed bytes. The others are made to be nearly right: valid HDF5 with wrong
//! contents (`structure`), lines with wrong fields (`text`, whose bytes are changed in half of the cases). A case is told by its
//! number and the seeds alone. A worker process reads one after the other, so that a crash, a hang (10 s of its time) or too much
//! memory costs only that process; the case goes into the folder, and `read` under gdb says whether it is ours or HDF5's.
mod random;
mod structure;
mod text;

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kaichi_core::io::{self, guide_table, inspect, GuideFile, Orientation, ReadOptions};
use kaichi_core::run::on_threads;

use random::Random;

/// What is wrong with what was read. Errors of the reader are right.
type Wrong = Result<(), String>;
type Made = Result<(), Box<dyn Error>>;

struct Reader {
    name: &'static str,
    read: fn(&Path) -> kaichi_core::Result<Wrong>,
    make: fn(&mut Random, &Path) -> Made,
    /// Then the bytes of what was made are changed, too: the library that reads it does not mind.
    is_text: bool,
}

/// A new reader is one line.
const READERS: &[Reader] = &[
    Reader { name: "h5ad", read: anndata, make: |random, path| Ok(structure::h5ad(random, path)?), is_text: false },
    Reader { name: "h5mu", read: anndata, make: |random, path| Ok(structure::h5mu(random, path)?), is_text: false },
    Reader { name: "tenx", read: counts, make: |random, path| Ok(structure::tenx(random, path)?), is_text: false },
    Reader {
        name: "molecules",
        read: counts,
        make: |random, path| Ok(structure::molecules(random, path)?),
        is_text: false,
    },
    Reader { name: "mtx", read: mtx, make: |random, path| Ok(text::mtx(random, path)?), is_text: true },
    Reader { name: "table", read: mtx, make: |random, path| Ok(text::table(random, path)?), is_text: true },
    Reader {
        name: "guide_table",
        read: table,
        make: |random, path| Ok(text::guide_table(random, path)?),
        is_text: true,
    },
];

/// Bytes that a reader may take beyond four times the file: threads, HDF5's buffers, and what its code takes at first use.
const FREE: u64 = 96 << 20;
/// Of the processor, and of the clock: the machine may be busy.
const HANG: Duration = Duration::from_secs(10);
const STUCK: Duration = Duration::from_secs(180);

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
        ("read", [file]) => {
            println!("{:?}", on_threads(2, || (reader.read)(Path::new(file))));
            ExitCode::SUCCESS
        }
        ("work", [first, file, seeds @ ..]) => {
            let Ok(first) = first.parse() else { return usage() };
            work(reader, first, Path::new(file), &load(seeds))
        }
        ("smoke", [cases, folder]) => {
            let Ok(cases) = cases.parse() else { return usage() };
            supervise(reader, 0, cases, STUCK * 10, Path::new(folder), &[])
        }
        (seconds, [folder, seeds @ ..]) => {
            let Ok(seconds) = seconds.parse() else { return usage() };
            // Another part of the numbers in each run.
            let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
            supervise(reader, clock << 24, u64::MAX, Duration::from_secs(seconds), Path::new(folder), seeds)
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
    let read: Vec<Vec<u8>> = seeds.iter().filter_map(|seed| std::fs::read(seed).ok()).collect();
    assert!(read.len() == seeds.len(), "a seed file cannot be read");
    read
}

/// Writes the case of that number.
fn make(reader: &Reader, number: u64, path: &Path, seeds: &[Vec<u8>]) {
    let random = &mut Random::new(number);
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    if number % 2 == 0 && !seeds.is_empty() {
        let mut bytes = random.one_of(seeds).clone();
        change(random, &mut bytes);
        let _ = std::fs::write(path, bytes);
        return;
    }
    // Wrong contents that HDF5 refuses to write are a smaller file.
    let _ = (reader.make)(random, path);
    if reader.is_text && random.one_in(2) {
        let mut files = vec![path.to_owned()];
        if let Ok(entries) = std::fs::read_dir(path) {
            files = entries.flatten().map(|entry| entry.path()).collect();
            files.sort_unstable();
        }
        if files.is_empty() {
            return;
        }
        let file = random.one_of(&files);
        let mut bytes = std::fs::read(file).unwrap_or_default();
        change(random, &mut bytes);
        let _ = std::fs::write(file, bytes);
    }
}

fn change(random: &mut Random, bytes: &mut Vec<u8>) {
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
}

// ---- what is read, in each way that a user may ask for ----

/// Of several ways to read a file one may be right where the others are errors.
fn each_way(path: &Path, ways: &[ReadOptions]) -> kaichi_core::Result<Wrong> {
    for options in ways {
        match io::read(path, options) {
            Ok(read) => {
                if let Err(wrong) = check(&read) {
                    return Ok(Err(wrong));
                }
            }
            Err(error @ kaichi_core::Error::Internal(_)) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(Ok(()))
}

fn hdf5(path: &Path, ways: &[ReadOptions]) -> kaichi_core::Result<Wrong> {
    if let Err(error @ kaichi_core::Error::Internal(_)) = inspect::inspect(path) {
        return Err(error);
    }
    each_way(path, ways)
}

fn anndata(path: &Path) -> kaichi_core::Result<Wrong> {
    hdf5(path, &[ReadOptions::default(), ReadOptions { batch: Some("lane"), ..ReadOptions::default() }])
}

fn counts(path: &Path) -> kaichi_core::Result<Wrong> {
    hdf5(path, &[ReadOptions::default()])
}

fn mtx(path: &Path) -> kaichi_core::Result<Wrong> {
    let wanted = ReadOptions { orientation: Some(Orientation::CellsByGuides), ..ReadOptions::default() };
    each_way(path, &[ReadOptions::default(), ReadOptions { batch: Some("lane"), ..ReadOptions::default() }, wanted])
}

fn table(path: &Path) -> kaichi_core::Result<Wrong> {
    let (table, _) = guide_table::read(path)?;
    let holds = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("accepted, but {what}")) };
    let check = || -> Wrong {
        let ids = table.iter().find(|(name, _)| name == "guide_id").map(|(_, ids)| ids);
        let Some(ids) = ids else { return holds(false, "there is no guide_id") };
        holds(table.iter().all(|(_, values)| values.len() == ids.len()), "columns differ in length")?;
        let mut sorted: Vec<&str> = ids.iter().flatten().map(String::as_str).collect();
        sorted.sort_unstable();
        holds(sorted.len() == ids.len() && !ids.is_empty(), "guides have no names")?;
        holds(sorted.windows(2).all(|pair| pair[0] != pair[1]), "names are the same")
    };
    Ok(check())
}

/// Reads case after case, saying the number of each before it starts. A wrong result ends the process.
fn work(reader: &Reader, first: u64, file: &Path, seeds: &[Vec<u8>]) -> ExitCode {
    let mut out = std::io::stdout();
    // Fixed costs are no case's.
    make(reader, 1, file, &[]);
    let _ = on_threads(2, || (reader.read)(file));
    for number in first.. {
        make(reader, number, file, seeds);
        if writeln!(out, "{number}").and_then(|()| out.flush()).is_err() {
            break;
        }
        let size = size(file);
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let before = memory("VmRSS:");
        let wrong = match on_threads(2, || (reader.read)(file)) {
            Ok(read) => read.err(),
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

fn size(path: &Path) -> u64 {
    let sizes =
        |entries: std::fs::ReadDir| entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|m| m.len()).sum();
    std::fs::read_dir(path).map_or_else(|_| std::fs::metadata(path).map_or(0, |file| file.len()), sizes)
}

/// Seconds of the processor from /proc/<process>/stat: of the process, and of the children that it waited for.
fn seconds(process: &str) -> [u64; 2] {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let ticks: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(4)
        .map_while(|t| t.parse().ok())
        .collect();
    match ticks[..] {
        // 100 ticks a second on every Linux.
        [user, system, children, of_system] => [(user + system) / 100, (children + of_system) / 100],
        _ => [0, 0],
    }
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
        holds(
            !sorted[0].is_empty() && sorted.windows(2).all(|pair| pair[0] != pair[1]),
            "names are empty or the same",
        )?;
    }
    holds(read.batch.as_ref().is_none_or(|batch| batch.len() == cells), "batches are not as many as cells")
}

/// Cases from the first number on, until there were so many or the time is over.
fn supervise(reader: &Reader, first: u64, cases: u64, time: Duration, folder: &Path, seeds: &[String]) -> ExitCode {
    let (Ok(program), Ok(())) = (std::env::current_exe(), std::fs::create_dir_all(folder)) else {
        eprintln!("{} cannot be made", folder.display());
        return ExitCode::from(2);
    };
    let current: PathBuf = folder.join(format!("current-{}-{}", reader.name, std::process::id()));
    let start = Instant::now();
    let (mut number, mut done, mut finds) = (first, 0u64, 0u64);
    while start.elapsed() < time && done < cases {
        let mut worker = Command::new(&program);
        worker.args([reader.name, "work", &number.to_string()]).arg(&current).args(seeds);
        let Ok(mut worker) = worker.stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
            return ExitCode::from(2);
        };
        let Some(said) = worker.stdout.take() else { return ExitCode::from(2) };
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(said).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let process = worker.id().to_string();
        let (mut begun, mut taken) = (Instant::now(), 0);
        let mut wrong = None;
        let why = loop {
            match lines.recv_timeout(Duration::from_secs(5)) {
                Ok(line) => match line.strip_prefix("wrong: ") {
                    Some(text) => wrong = Some(text.to_owned()),
                    None => {
                        number = line.parse().unwrap_or(number);
                        (begun, taken) = (Instant::now(), seconds(&process)[0]);
                        // The number is said before its case, so the last is done once the next one is said.
                        if start.elapsed() >= time || number - first >= cases {
                            break None;
                        }
                        done += 1;
                    }
                },
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if seconds(&process)[0] - taken >= HANG.as_secs() || begun.elapsed() >= STUCK {
                        break Some("a hang".to_owned());
                    }
                }
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
        let mut case = Command::new(&program);
        case.args([reader.name, "case", &number.to_string()]).arg(folder.join(format!("{}-{number}", reader.name)));
        let _ = case.args(seeds).status();
        number += 1;
    }
    let _ = if current.is_dir() { std::fs::remove_dir_all(&current) } else { std::fs::remove_file(&current) };
    let (clock, processor) = (start.elapsed().as_secs(), seconds("self")[1]);
    println!("{}: {done} cases in {clock} s ({processor} s of the processor), {finds} finds", reader.name);
    if finds == 0 && (cases == u64::MAX || done >= cases) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
