//! A command line, environment or file in etcd's words, as values by flag.

use super::table::{Flag, Here, IGNORED, Kind, SECTIONS, find, flags, variable};
use std::{collections::BTreeMap, fmt::Write as _};

/// Why a command line is not understood. The texts are those of Go's `flag` package, which operators of
/// etcd know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// There is none of that name.
    #[error("flag provided but not defined: -{0}")]
    Undefined(String),
    /// The last word of the line.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// Not one of Go's words for true and false.
    #[error("invalid boolean value {value:?} for -{name}: parse error")]
    NotBoolean {
        /// Which.
        name: String,
        /// What was given.
        value: String,
    },
    /// Such as `--=x`.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// A word that belongs to no flag.
    #[error("{0:?} is not a valid flag")]
    NotAFlag(String),
    /// In a file.
    #[error("configuration file: {0}")]
    File(String),
    /// A flag that stands for a promise which is not kept here.
    #[error("--{name}: not supported: {why}")]
    Refused {
        /// Which.
        name: &'static str,
        /// Why.
        why: &'static str,
    },
}

/// What was given, by the flag's present name; and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values {
    given: BTreeMap<&'static str, String>,
    /// One line each.
    pub warnings: Vec<String>,
}

impl Values {
    /// The value of a flag, etcd's default if it was not given.
    ///
    /// # Panics
    /// There is no such flag in the table.
    pub(super) fn get(&self, name: &str) -> &str {
        let flag = find(name).expect("a setting's flag is in the table");
        self.given.get(flag.name).map_or(flag.default, String::as_str)
    }

    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// A flag that is true or false.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        go_bool(self.get(name)) == Some(true)
    }

    fn set(&mut self, flag: &'static Flag, name: &str, value: &str) -> Result<(), FlagError> {
        if flag.kind == Kind::Bool && go_bool(value).is_none() {
            return Err(FlagError::NotBoolean { name: name.to_owned(), value: value.to_owned() });
        }
        self.given.insert(flag.name, value.to_owned());
        Ok(())
    }

    /// Says what is not as in etcd.
    ///
    /// # Errors
    /// [`FlagError::Refused`].
    fn judge(mut self) -> Result<Self, FlagError> {
        for flag in flags() {
            let Some(value) = self.given.get(flag.name) else { continue };
            let same = match flag.kind {
                Kind::Bool => go_bool(value) == go_bool(flag.default),
                Kind::Text | Kind::Duration => value == flag.default || value.is_empty(),
            };
            if same {
                continue;
            }
            match flag.here {
                Here::Other(instead) => {
                    self.warnings
                        .push(format!("--{}={value} is not honoured: {instead}", flag.name));
                }
                Here::Refused(why) => return Err(FlagError::Refused { name: flag.name, why }),
                Here::Same(_) | Here::Moot(_) | Here::Alias(_) => {}
            }
        }
        Ok(self)
    }
}

/// Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a command line and, for what it leaves open, the environment.
///
/// # Errors
/// See [`FlagError`].
pub fn parse(
    arguments: &[String],
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Values, FlagError> {
    let mut values = Values::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(word) = argument.strip_prefix('-') else {
            return Err(FlagError::NotAFlag(argument.clone()));
        };
        let word = word.strip_prefix('-').unwrap_or(word);
        if word.is_empty() {
            match rest.next() {
                None if argument == "--" => break,
                Some(after) if argument == "--" => return Err(FlagError::NotAFlag(after.clone())),
                Some(_) | None => return Err(FlagError::NotAFlag(argument.clone())),
            }
        }
        if word.starts_with(['-', '=']) {
            return Err(FlagError::Syntax(argument.clone()));
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let found = find(name);
        let value = match (value, found.map(|flag| flag.kind)) {
            (Some(value), _) => value,
            (None, Some(Kind::Bool)) => "true",
            (None, None) if !IGNORED.contains(&name) => {
                return Err(FlagError::Undefined(name.to_owned()));
            }
            (None, _) => rest.next().ok_or_else(|| FlagError::NoValue(name.to_owned()))?,
        };
        match found {
            Some(flag) => values.set(flag, name, value)?,
            None if IGNORED.contains(&name) => {
                values.warnings.push(format!("--{name} is ignored, as etcd ignores it"));
            }
            None => return Err(FlagError::Undefined(name.to_owned())),
        }
    }
    let known: BTreeMap<String, &Flag> = flags()
        .filter(|flag| !matches!(flag.name, "help" | "h" | "version"))
        .flat_map(|flag| {
            [flag.name.to_owned(), format!("experimental-{}", flag.name)]
                .map(|name| (variable(&name), flag))
        })
        .collect();
    for (variable, value) in environment {
        if !variable.starts_with("ETCD_") || value.is_empty() {
            continue;
        }
        match known.get(&variable) {
            Some(flag) if values.given.contains_key(flag.name) => {}
            Some(flag) => values.set(flag, flag.name, &value)?,
            None => values.warnings.push(format!("unrecognized environment variable {variable}")),
        }
    }
    values.judge()
}

/// Reads a configuration file in etcd's form.
///
/// # Errors
/// [`FlagError::File`] names the key.
pub fn parse_file(text: &str) -> Result<Values, FlagError> {
    let file = |what: String| FlagError::File(what);
    let top: serde_json::Map<String, serde_json::Value> =
        serde_yaml_ng::from_str(text).map_err(|e| file(e.to_string()))?;
    let mut values = Values::default();
    for (key, value) in &top {
        match (key.as_str(), value) {
            ("client-transport-security", serde_json::Value::Object(keys)) => {
                for (key, value) in keys {
                    values.set_key(key, key, value)?;
                }
            }
            ("peer-transport-security", serde_json::Value::Object(keys)) => {
                for (key, value) in keys {
                    values.set_key(&format!("peer-{key}"), key, value)?;
                }
            }
            (key, value) => values.set_key(key, key, value)?,
        }
    }
    values.judge()
}

impl Values {
    fn set_key(
        &mut self,
        name: &str,
        key: &str,
        value: &serde_json::Value,
    ) -> Result<(), FlagError> {
        use serde_json::Value;
        let flag =
            find(name).filter(|flag| !matches!(flag.name, "help" | "version" | "config-file"));
        let flag = flag.ok_or_else(|| FlagError::File(format!("unknown field {key:?}")))?;
        let text = match value {
            Value::Null => return Ok(()),
            Value::Bool(value) => value.to_string(),
            // As Go's time.Duration in JSON.
            Value::Number(nanoseconds) if flag.kind == Kind::Duration => format!("{nanoseconds}ns"),
            Value::Number(value) => value.to_string(),
            Value::String(value) => value.clone(),
            Value::Array(values) => {
                let texts = values.iter().map(|value| value.as_str().map(str::to_owned));
                let texts: Option<Vec<String>> = texts.collect();
                let texts =
                    texts.ok_or_else(|| FlagError::File(format!("{key}: not a list of texts")))?;
                texts.join(",")
            }
            Value::Object(_) => return Err(FlagError::File(format!("{key}: not a value"))),
        };
        self.set(flag, key, &text)
    }
}

/// What `--help` prints.
#[must_use]
pub fn help() -> String {
    let mut text = "Trireme in etcd's place: the etcd v3 API over Trireme's log, with etcd's flags.\n\n\
                    Usage: trireme etcd [FLAGS]      (or any name for this program that is `etcd`)\n\n\
                    -flag and --flag are the same, and so are `--flag value` and `--flag=value`; what is\n\
                    true or false takes a value only with `=`. What the command line leaves open is taken\n\
                    from ETCD_FLAG_NAME. Older names, --experimental-NAME, are understood.\n"
        .to_owned();
    let lines = |text: &mut String, wanted: fn(&Here) -> Option<&'static str>, section: &[Flag]| {
        for flag in section {
            let Some(says) = wanted(&flag.here) else { continue };
            let default = match flag.kind {
                Kind::Bool if flag.default == "false" => String::new(),
                Kind::Bool | Kind::Text | Kind::Duration if flag.default.is_empty() => {
                    String::new()
                }
                Kind::Bool | Kind::Text | Kind::Duration => format!(" [{}]", flag.default),
            };
            let _ = writeln!(text, "  --{}{default}\n        {says}", flag.name);
        }
    };
    for (title, section) in SECTIONS {
        let _ = writeln!(text, "\n{title}:");
        lines(
            &mut text,
            |here| match here {
                Here::Same(says) => Some(says),
                Here::Moot(_) | Here::Other(_) | Here::Refused(_) | Here::Alias(_) => None,
            },
            section,
        );
    }
    text.push_str("\nAccepted, and not what etcd does; said in the log if given:\n");
    for (_, section) in SECTIONS {
        lines(
            &mut text,
            |here| match here {
                Here::Other(says) => Some(says),
                Here::Moot(_) | Here::Same(_) | Here::Refused(_) | Here::Alias(_) => None,
            },
            section,
        );
    }
    text.push_str("\nAccepted, and without a meaning here:\n");
    for (_, section) in SECTIONS {
        lines(
            &mut text,
            |here| match here {
                Here::Moot(says) => Some(says),
                Here::Other(_) | Here::Same(_) | Here::Refused(_) | Here::Alias(_) => None,
            },
            section,
        );
    }
    text.push_str("\nRefused:\n");
    for (_, section) in SECTIONS {
        lines(
            &mut text,
            |here| match here {
                Here::Refused(says) => Some(says),
                Here::Other(_) | Here::Same(_) | Here::Moot(_) | Here::Alias(_) => None,
            },
            section,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn read(line: &str, environment: &[(&str, &str)]) -> Result<Values, FlagError> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        parse(&words(line), environment)
    }

    #[test]
    fn a_flag_is_written_as_gos_flags_are() {
        for line in ["--name a", "--name=a", "-name a", "-name=a", "--name b --name a"] {
            assert_eq!(read(line, &[]).unwrap().get("name"), "a", "{line}");
        }
        for (line, want) in [
            ("--client-cert-auth", true),
            ("-client-cert-auth=T", true),
            ("--client-cert-auth=0", false),
            ("", false),
        ] {
            assert_eq!(read(line, &[]).unwrap().is_set("client-cert-auth"), want, "{line}");
        }
    }

    #[test]
    fn what_is_not_a_flag_is_refused_in_etcds_words() {
        for (line, want) in [
            ("--nome a", "flag provided but not defined: -nome"),
            ("--nome=a", "flag provided but not defined: -nome"),
            ("--name", "flag needs an argument: -name"),
            ("--client-cert-auth true", "\"true\" is not a valid flag"),
            (
                "--client-cert-auth=yes",
                "invalid boolean value \"yes\" for -client-cert-auth: parse error",
            ),
            ("--=a", "bad flag syntax: --=a"),
            ("---name", "bad flag syntax: ---name"),
            ("gateway", "\"gateway\" is not a valid flag"),
            ("- a", "\"-\" is not a valid flag"),
            ("-- a", "\"a\" is not a valid flag"),
            ("--force-new-cluster", "--force-new-cluster: not supported"),
        ] {
            let error = read(line, &[]).unwrap_err().to_string();
            assert!(error.starts_with(want), "{line}: {error}");
        }
    }

    #[test]
    fn the_command_line_goes_before_the_environment() {
        let environment = [("ETCD_NAME", "env"), ("ETCD_DATA_DIR", "/env"), ("ETCD_TYPO", "x")];
        let values = read("--name line", &environment).unwrap();
        assert_eq!((values.get("name"), values.get("data-dir")), ("line", "/env"));
        assert_eq!(values.warnings, ["unrecognized environment variable ETCD_TYPO"]);
        let values =
            read("", &[("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "5s")]).unwrap();
        assert_eq!(values.get("watch-progress-notify-interval"), "5s");
    }

    #[test]
    fn what_is_not_honoured_is_said_once_and_only_if_it_was_asked_for() {
        assert_eq!(
            read("--logger=zap --pre-vote --strict-reconfig-check", &[]).unwrap().warnings,
            [""; 0]
        );
        let warnings = read("--unsafe-no-fsync --logger capnslog", &[]).unwrap().warnings;
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings.iter().any(
                |w| w.contains("--unsafe-no-fsync=true is not honoured: every write is synced")
            )
        );
    }

    #[test]
    fn a_file_is_read_as_etcds() {
        let values = parse_file(
            "name: a\nmax-txn-ops: 7\npre-vote: true\nwatch-progress-notify-interval: 100000000\n\
             log-outputs: [stderr]\n\
             client-transport-security:\n  cert-file: c\n  client-cert-auth: true\n\
             peer-transport-security:\n  cert-file: p\n",
        )
        .unwrap();
        for (name, want) in [
            ("name", "a"),
            ("max-txn-ops", "7"),
            ("watch-progress-notify-interval", "100000000ns"),
            ("cert-file", "c"),
            ("client-cert-auth", "true"),
            ("peer-cert-file", "p"),
        ] {
            assert_eq!(values.get(name), want, "{name}");
        }
        let error = parse_file("nome: a").unwrap_err().to_string();
        assert_eq!(error, "configuration file: unknown field \"nome\"");
    }

    #[test]
    fn the_help_names_every_flag() {
        let help = help();
        for flag in flags().filter(|flag| flag.name != "h") {
            assert!(help.contains(&format!("--{}", flag.name)), "{}", flag.name);
        }
    }
}
