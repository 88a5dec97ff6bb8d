//! The command line of kaichi. Names, defaults and help of the models come from the registry of the core.
#![forbid(unsafe_code)]

mod call_sets;
mod cellranger;
mod cli;
mod commands;
mod numbers;
mod output;
mod report;
mod screen;
mod settings;
mod tables;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;

use kaichi_core::{Error, Result};

fn main() -> ExitCode {
    let command = cli::command();
    let matches = match command.clone().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            // Whoever closed the pipe does not want the rest.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // A panic is told like every other error.
    std::panic::set_hook(Box::new(|_| {}));
    let run = || -> Result<()> {
        report::listen_to_ctrl_c()?;
        commands::run(&command, &matches)
    };
    let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::Internal(format!(
            "A defect in kaichi stopped the work ({text}). Please report it with the input that shows it."
        )))
    });
    report::let_ctrl_c_end();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "kaichi: error ({}): {error}", error.kind());
            ExitCode::from(exit_code(&error))
        }
    }
}

/// As `--help` says.
fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Argument(_) | Error::Model(_) => 2,
        Error::Internal(_) => 70,
        Error::Interrupted => report::INTERRUPTED,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_part_usage_from_data() {
        assert_eq!(exit_code(&kaichi_core::models::find("poison").err().unwrap()), 2);
        assert_eq!(exit_code(&Error::Argument(String::new())), 2);
        assert_eq!(exit_code(&Error::Batch(String::new())), 1);
        assert_eq!(exit_code(&Error::Internal(String::new())), 70);
        assert_eq!(exit_code(&Error::Interrupted), 130);
    }
}
