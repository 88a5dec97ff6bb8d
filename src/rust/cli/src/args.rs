//! Options of a command: `--name value` or `--name=value`, and one input.
use std::ffi::{OsStr, OsString};
use std::path::Path;

use kaichi_core::{Error, Result};

pub struct Command {
    pub name: &'static str,
    /// What stands for the input in the help; None for a command without one.
    pub input: Option<&'static str>,
    pub about: &'static str,
    /// More for the help.
    pub notes: &'static str,
    pub options: fn() -> Vec<Opt>,
    pub run: fn(&Args) -> Result<()>,
}

pub struct Opt {
    /// Without the dashes.
    pub name: &'static str,
    /// What stands for the value in the help.
    pub value: &'static str,
    pub about: String,
}

impl Opt {
    pub fn new(name: &'static str, value: &'static str, about: impl Into<String>) -> Self {
        Self { name, value, about: about.into() }
    }
}

pub enum Parsed {
    Help,
    Args(Args),
}

pub struct Args {
    input: Option<OsString>,
    given: Vec<(&'static str, OsString)>,
}

/// The numbers an option takes.
#[derive(Clone, Copy)]
pub struct Range {
    pub low: f64,
    pub high: f64,
    pub whole: bool,
}

impl Range {
    pub const SHARE: Range = Range { low: 0.0, high: 1.0, whole: false };

    fn describe(&self) -> String {
        let kind = if self.whole { "a whole number" } else { "a number" };
        if self.high.is_finite() {
            format!("{kind} from {} to {}", self.low, self.high)
        } else if self.low == f64::MIN_POSITIVE {
            format!("{kind} above 0")
        } else {
            format!("{kind}, {} or more", self.low)
        }
    }
}

pub fn parse(command: &Command, options: &[Opt], words: Vec<OsString>) -> Result<Parsed> {
    let see = format!("See kaichi {} --help.", command.name);
    let mut args = Args { input: None, given: vec![] };
    if words.iter().take_while(|word| *word != "--").any(|word| word == "--help" || word == "-h") {
        return Ok(Parsed::Help);
    }
    let mut words = words.into_iter().peekable();
    let mut only_input = false;
    while let Some(word) = words.next() {
        let option = word.to_str().filter(|text| !only_input && text.len() > 1 && text.starts_with('-'));
        let Some(option) = option else {
            if command.input.is_none() || args.input.is_some() {
                return Err(Error::Argument(format!(
                    "kaichi {} takes {}, so \"{}\" is one too many. {see}",
                    command.name,
                    if command.input.is_some() { "one input" } else { "no input" },
                    word.to_string_lossy()
                )));
            }
            args.input = Some(word);
            continue;
        };
        if option == "--" {
            only_input = true;
            continue;
        }
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (option, None),
        };
        let Some(known) = options.iter().find(|known| name.strip_prefix("--") == Some(known.name)) else {
            return Err(Error::Argument(format!("kaichi {} has no option {name}. {see}", command.name)));
        };
        if args.given(known.name) {
            return Err(Error::Argument(format!("{name} is given twice.")));
        }
        let value = value.or_else(|| words.next_if(|next| !next.as_encoded_bytes().starts_with(b"--")));
        match value.filter(|value| !value.is_empty()) {
            Some(value) => args.given.push((known.name, value)),
            None => return Err(Error::Argument(format!("{name} needs a value: {name} {}. {see}", known.value))),
        }
    }
    if let (Some(input), None) = (command.input, &args.input) {
        return Err(Error::Argument(format!("Give the input: kaichi {} {input}. {see}", command.name)));
    }
    Ok(Parsed::Args(args))
}

impl Args {
    /// The input, which [`parse`] requires of the commands that have one.
    pub fn input(&self) -> &Path {
        Path::new(self.input.as_deref().unwrap_or(OsStr::new("")))
    }

    pub fn given(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub fn path(&self, name: &str) -> Option<&Path> {
        self.value(name).map(Path::new)
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>> {
        let text = |value: &'_ OsString| Error::Argument(format!("--{name} is not UTF-8: {value:?}."));
        self.value(name).map(|value| value.to_str().ok_or_else(|| text(value))).transpose()
    }

    pub fn number(&self, name: &str, range: Range) -> Result<Option<f64>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse()
            .ok()
            .filter(|x: &f64| {
                x.is_finite() && (range.low..=range.high).contains(x) && (!range.whole || x.fract() == 0.0)
            })
            .map(Some)
            .ok_or_else(|| Error::Argument(format!("--{name} is \"{text}\"; give {}.", range.describe())))
    }

    fn value(&self, name: &str) -> Option<&OsString> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value)
    }
}

pub fn help(command: &Command, options: &[Opt]) -> String {
    let mut usage = format!("Usage: kaichi {}", command.name);
    if let Some(input) = command.input {
        usage += &format!(" {input}");
    }
    if !options.is_empty() {
        usage += " [OPTIONS]";
    }
    let rows: Vec<_> =
        options.iter().map(|option| (format!("--{} {}", option.name, option.value), option.about.clone())).collect();
    let mut text = format!("{}\n\n{usage}\n", command.about);
    if !rows.is_empty() {
        text += &format!("\nOptions:\n{}", columns(&rows));
    }
    if !command.notes.is_empty() {
        text += &format!("\n{}", command.notes);
    }
    text
}

/// Two columns, the second wrapped.
pub fn columns(rows: &[(String, String)]) -> String {
    const WIDTH: usize = 100;
    let left = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, about) in rows {
        let mut line = format!("  {name:left$} ");
        let mut used = left + 3;
        for word in about.split_whitespace() {
            if used + 1 + word.chars().count() > WIDTH {
                line += &format!("\n{:1$}", "", left + 3);
                used = left + 3;
            }
            line += &format!(" {word}");
            used += 1 + word.chars().count();
        }
        text += &line;
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: Command = Command {
        name: "try",
        input: Some("FILE"),
        about: "Tries.",
        notes: "",
        options: || vec![Opt::new("model", "NAME", "a model"), Opt::new("share", "X", "a share")],
        run: |_| Ok(()),
    };

    fn parsed(words: &[&str]) -> Result<Parsed> {
        parse(&COMMAND, &(COMMAND.options)(), words.iter().map(OsString::from).collect())
    }

    fn args(words: &[&str]) -> Args {
        match parsed(words) {
            Ok(Parsed::Args(args)) => args,
            Ok(Parsed::Help) => panic!("help"),
            Err(error) => panic!("{error}"),
        }
    }

    fn refused(words: &[&str]) -> String {
        match parsed(words) {
            Err(Error::Argument(text)) => text,
            _ => panic!("{words:?} is accepted"),
        }
    }

    #[test]
    fn values_follow_or_stand_behind_the_equals_sign() {
        for words in
            [&["a.h5ad", "--model", "umi"][..], &["--model=umi", "a.h5ad"], &["--model", "umi", "--", "a.h5ad"]]
        {
            let args = args(words);
            assert_eq!(args.input(), Path::new("a.h5ad"));
            assert_eq!(args.text("model").unwrap(), Some("umi"));
            assert!(!args.given("share"));
        }
        assert_eq!(args(&["--", "--model"]).input(), Path::new("--model"));
        assert_eq!(args(&["-"]).input(), Path::new("-"));
        assert_eq!(args(&["a", "--model=--x=y"]).text("model").unwrap(), Some("--x=y"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(refused(&[]).contains("kaichi try FILE"));
        assert!(refused(&["a", "b"]).contains("\"b\" is one too many"));
        assert!(refused(&["a", "--modell", "umi"]).contains("no option --modell"));
        assert!(refused(&["a", "-model", "umi"]).contains("no option -model"));
        assert!(refused(&["a", "--model"]).contains("--model NAME"));
        assert!(refused(&["a", "--model", "--share", "1"]).contains("--model needs a value"));
        assert!(refused(&["a", "--model="]).contains("--model needs a value"));
        assert!(refused(&["a", "--model", "umi", "--model=max"]).contains("given twice"));
    }

    #[test]
    fn numbers_keep_to_their_range() {
        let number = |text: &str, range| args(&["a", "--share", text]).number("share", range);
        assert_eq!(number("0.25", Range::SHARE).unwrap(), Some(0.25));
        assert_eq!(args(&["a"]).number("share", Range::SHARE).unwrap(), None);
        for bad in ["-0.1", "1.1", "nan", "inf", "half", "0,5"] {
            let text = number(bad, Range::SHARE).unwrap_err().to_string();
            assert_eq!(text, format!("--share is \"{bad}\"; give a number from 0 to 1."));
        }
        let whole = Range { low: 1.0, high: f64::INFINITY, whole: true };
        assert_eq!(number("1e3", whole).unwrap(), Some(1000.0));
        assert!(number("1.5", whole).unwrap_err().to_string().ends_with("give a whole number, 1 or more."));
    }

    #[test]
    fn help_is_asked_for_anywhere() {
        for words in [&["--help"][..], &["a", "--model", "-h"], &["--nonsense", "--help"]] {
            assert!(matches!(parsed(words), Ok(Parsed::Help)));
        }
        assert!(matches!(parsed(&["--", "--help"]), Ok(Parsed::Args(_))));
        let text = help(&COMMAND, &(COMMAND.options)());
        assert!(text.contains("Usage: kaichi try FILE [OPTIONS]"));
        assert!(text.contains("\n  --model NAME  a model\n  --share X     a share\n"));
    }
}
