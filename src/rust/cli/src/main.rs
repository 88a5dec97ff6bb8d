//! The command line of kaichi. Names, defaults and help of the models come from the registry of the core.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod csv;
mod output;
mod scores;
mod settings;
mod tables;

use std::ffi::OsString;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;

use kaichi_core::{Error, Result};

use crate::args::Parsed;
use crate::commands::COMMANDS;
use crate::output::print;

fn main() -> ExitCode {
    // A panic is told like every other error.
    std::panic::set_hook(Box::new(|_| {}));
    let result =
        catch_unwind(AssertUnwindSafe(|| run(std::env::args_os().skip(1).collect()))).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(Error::Internal(format!(
                "A defect in kaichi stopped the work ({text}). Please report it with the input that shows it."
            )))
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kaichi: error ({}): {error}", error.kind());
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 2 where the command line is at fault, 1 where the data are.
fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Argument(_) | Error::Model(_) => 2,
        _ => 1,
    }
}

fn run(mut words: Vec<OsString>) -> Result<()> {
    if words.is_empty() {
        return Err(Error::Argument(format!("Give a command: {}. See kaichi --help.", command_names())));
    }
    let first = words.remove(0);
    match first.to_str() {
        Some("-h" | "--help") => return print(&overview()),
        Some("-V" | "--version") => return print(&format!("kaichi {}\n", env!("CARGO_PKG_VERSION"))),
        _ => {}
    }
    let Some(command) = COMMANDS.iter().find(|command| first == command.name) else {
        return Err(Error::Argument(format!(
            "There is no command \"{}\". The commands are {}.",
            first.to_string_lossy(),
            command_names()
        )));
    };
    let options = (command.options)();
    match args::parse(command, &options, words)? {
        Parsed::Help => print(&args::help(command, &options)),
        Parsed::Args(args) => (command.run)(&args),
    }
}

fn command_names() -> String {
    COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>().join(", ")
}

fn overview() -> String {
    let rows: Vec<_> = COMMANDS.iter().map(|command| (command.name.to_owned(), command.about.to_owned())).collect();
    format!(
        "kaichi {}: which CRISPR guides did each cell of a screen receive?\n\n\
         Usage: kaichi COMMAND ...\n\nCommands:\n{}\n\
         kaichi COMMAND --help explains a command. Exit status: 0 done, 1 the data are at fault, 2 the command line is.\n",
        env!("CARGO_PKG_VERSION"),
        args::columns(&rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_part_usage_from_data() {
        assert_eq!(exit_code(&kaichi_core::models::find("poison").err().unwrap()), 2);
        assert_eq!(exit_code(&Error::Argument(String::new())), 2);
        assert_eq!(exit_code(&Error::Batch(String::new())), 1);
    }

    #[test]
    fn the_overview_names_every_command() {
        assert!(COMMANDS.iter().all(|command| overview().contains(&format!("\n  {} ", command.name))));
    }
}
