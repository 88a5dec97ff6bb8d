//! What is said while the work goes on: a bar on a terminal, lines elsewhere; and Ctrl-C.
use std::io::IsTerminal;
use std::sync::{mpsc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kaichi_core::run::{on_threads, Progress};
use kaichi_core::{Error, Result};

/// Of the one command that this process runs.
static PROGRESS: OnceLock<Progress> = OnceLock::new();
/// Whether there is a file without its name, which its writer removes if it is told to stop. Who ends the process by Ctrl-C keeps
/// the lock: no file is begun then.
static WRITING: Mutex<bool> = Mutex::new(false);

pub const INTERRUPTED: u8 = 130;

fn progress() -> &'static Progress {
    PROGRESS.get_or_init(Progress::default)
}

/// From now on Ctrl-C ends the process: at once, or as soon as an unfinished output is removed. A second one does not wait.
pub fn listen_to_ctrl_c() -> Result<()> {
    let mut asked = false;
    ctrlc::set_handler(move || {
        let writing = writing();
        if asked || !*writing {
            std::process::exit(i32::from(INTERRUPTED));
        }
        asked = true;
        progress().cancel();
    })
    .map_err(|error| Error::Internal(format!("Ctrl-C cannot be listened to: {error}.")))
}

/// On the main thread, before it ends: does not come back where Ctrl-C ends the process, whose status is that of Ctrl-C then.
pub fn let_ctrl_c_end() {
    drop(writing());
}

fn writing() -> MutexGuard<'static, bool> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, Ctrl-C waits for the writer.
pub struct Unfinished(());

impl Unfinished {
    pub fn new() -> Self {
        *writing() = true;
        Unfinished(())
    }

    /// Stops where Ctrl-C was pressed.
    pub fn check(&self) -> Result<()> {
        progress().check()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        *writing() = false;
    }
}

pub struct Report {
    quiet: bool,
    verbose: bool,
    bars: bool,
    threads: usize,
    start: Instant,
}

impl Report {
    pub fn new(matches: &ArgMatches) -> Self {
        let threads = match matches.get_one::<u16>("threads").copied() {
            Some(n) if n > 0 => usize::from(n),
            _ => std::thread::available_parallelism().map_or(1, |n| n.get() / 2).max(1),
        };
        let (quiet, verbose) = (matches.get_flag("quiet"), matches.get_flag("verbose"));
        let bars = !quiet && std::io::stderr().is_terminal();
        let report = Report { quiet, verbose, bars, threads, start: Instant::now() };
        report.detail(format_args!("{threads} {}", if threads == 1 { "thread" } else { "threads" }));
        report
    }

    /// A line that only --quiet silences.
    pub fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            self.line(text);
        }
    }

    pub fn detail(&self, text: impl std::fmt::Display) {
        if self.verbose {
            self.line(text);
        }
    }

    fn line(&self, text: impl std::fmt::Display) {
        use std::io::Write;
        let time =
            if self.verbose { format!("[{:7.2} s] ", self.start.elapsed().as_secs_f64()) } else { String::new() };
        // Who does not listen misses nothing.
        let _ = writeln!(std::io::stderr(), "{time}{text}");
    }

    /// Runs the work on its threads, and says on a terminal how far it is.
    pub fn watch<T: Send>(&self, doing: &str, work: impl FnOnce(&Progress) -> Result<T> + Send) -> Result<T> {
        let progress = progress();
        std::thread::scope(|scope| {
            let (send, receive) = mpsc::channel::<()>();
            let worker = scope.spawn(move || {
                let result = on_threads(self.threads, || work(progress));
                drop(send);
                result
            });
            let mut bar = None;
            let started = Instant::now();
            while let Err(mpsc::RecvTimeoutError::Timeout) = receive.recv_timeout(Duration::from_millis(100)) {
                // What is soon done needs no bar.
                if self.bars && started.elapsed() > Duration::from_millis(500) {
                    let bar = bar.get_or_insert_with(|| new_bar(doing));
                    bar.set_length(progress.total() as u64);
                    bar.set_position(progress.done() as u64);
                    bar.tick();
                }
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn new_bar(doing: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(doing.to_owned());
    bar
}
