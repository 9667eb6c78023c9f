//! What happens to a container that is not there: a few words of text, or values.
//!
//! A Pod's annotation `fake.trireme.local/CONTAINER` holds the script of a container,
//! `images.fake.trireme.local/ANYTHING` that of an image, after the image's name:
//!
//! ```text
//! fake.trireme.local/web: start=5ms exit=1@3s times=2 term=ignore exec=0@1s exec:check=7
//! images.fake.trireme.local/web: registry.example/web:1 pull=200ms error=unauthorized
//! ```
//!
//! | word | meaning | without it |
//! |---|---|---|
//! | `start=D` | the start takes D | at once |
//! | `start=fail`, `start=fail@D` | it cannot be started | it can |
//! | `exit=HOW@D` | it ends by itself D after its start: a code, `oom`, or `sig` and a number | it runs |
//! | `times=N` | only the first N instances do so | all |
//! | `term=CODE@D`, `term=ignore` | what it does on TERM | ends with 0 at once |
//! | `exec=CODE@D` | how a program ends that is run inside | 0 at once |
//! | `exec:NAME=CODE@D` | the program NAME | as `exec` |

use std::{collections::BTreeMap, time::Duration};

/// Annotations that begin so hold the script of the container that they are named after.
pub const CONTAINER_PREFIX: &str = "fake.trireme.local/";
/// Annotations that begin so hold an image's name and script.
pub const IMAGE_PREFIX: &str = "images.fake.trireme.local/";

/// Why a script is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fake script: {word:?}: {detail}")]
pub struct ScriptError {
    /// Which of its words.
    pub word: String,
    /// What is wrong with it.
    pub detail: String,
}

/// How something ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Its cgroup ran out of memory.
    OutOfMemory,
}

/// What a container does when it is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTerm {
    /// It ends.
    Exit {
        /// With this code.
        code: i32,
        /// So long after it was asked.
        after: Duration,
    },
    /// It goes on.
    Ignore,
}

/// How a program ends that is run inside a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecScript {
    /// With this code.
    pub code: i32,
    /// So long after its standard input has ended.
    pub after: Duration,
}

/// A container's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerScript {
    /// The start takes so long.
    pub start: Duration,
    /// And then fails.
    pub start_fails: bool,
    /// It ends by itself, so long after its start.
    pub end: Option<(End, Duration)>,
    /// Only this many instances do; `None` for all.
    pub times: Option<u32>,
    /// Asked to end.
    pub term: OnTerm,
    /// Programs run inside, by name; the empty name is for all others.
    pub execs: BTreeMap<String, ExecScript>,
}

impl Default for ContainerScript {
    fn default() -> Self {
        Self {
            start: Duration::ZERO,
            start_fails: false,
            end: None,
            times: None,
            term: OnTerm::Exit { code: 0, after: Duration::ZERO },
            execs: BTreeMap::new(),
        }
    }
}

/// An image's way to the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageScript {
    /// A pull takes so long.
    pub pull: Duration,
    /// And then fails, for this reason.
    pub error: Option<String>,
}

impl ContainerScript {
    /// Reads the words of a container's annotation.
    ///
    /// # Errors
    /// [`ScriptError`] names the word.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        for word in text.split_whitespace() {
            let wrong = |detail: String| ScriptError { word: word.to_owned(), detail };
            let (key, value) = word.split_once('=').ok_or_else(|| wrong("no '='".to_owned()))?;
            match key {
                "start" => match value.split_once('@') {
                    Some(("fail", after)) => {
                        (script.start_fails, script.start) =
                            (true, duration(after).map_err(wrong)?);
                    }
                    None if value == "fail" => script.start_fails = true,
                    Some(_) => return Err(wrong("a time, or fail".to_owned())),
                    None => script.start = duration(value).map_err(wrong)?,
                },
                "exit" => {
                    let (how, after) = value.split_once('@').unwrap_or((value, "0s"));
                    script.end = Some((end(how).map_err(wrong)?, duration(after).map_err(wrong)?));
                }
                "times" => {
                    script.times =
                        Some(value.parse().map_err(|_| wrong("not a number".to_owned()))?);
                }
                "term" if value == "ignore" => script.term = OnTerm::Ignore,
                "term" => {
                    let (code, after) = code_at(value).map_err(wrong)?;
                    script.term = OnTerm::Exit { code, after };
                }
                _ => {
                    let name = key.strip_prefix("exec").and_then(|rest| match rest {
                        "" => Some(""),
                        rest => rest.strip_prefix(':'),
                    });
                    let name = name.ok_or_else(|| wrong(format!("there is no {key:?}")))?;
                    let (code, after) = code_at(value).map_err(wrong)?;
                    script.execs.insert(name.to_owned(), ExecScript { code, after });
                }
            }
        }
        Ok(script)
    }

    /// How the program of this name ends, run inside.
    pub(super) fn exec(&self, program: &str) -> ExecScript {
        let found = self.execs.get(program).or_else(|| self.execs.get(""));
        found.copied().unwrap_or_default()
    }
}

impl ImageScript {
    /// Reads an image's annotation: its name, then its words.
    ///
    /// # Errors
    /// [`ScriptError`] names the word.
    pub fn parse(text: &str) -> Result<(String, Self), ScriptError> {
        let mut words = text.split_whitespace();
        let missing = || ScriptError { word: String::new(), detail: "no image".to_owned() };
        let image = words.next().ok_or_else(missing)?;
        let mut script = Self::default();
        for word in words {
            let wrong = |detail: String| ScriptError { word: word.to_owned(), detail };
            match word.split_once('=') {
                Some(("pull", value)) => script.pull = duration(value).map_err(wrong)?,
                Some(("error", value)) => script.error = Some(value.to_owned()),
                Some(_) | None => return Err(wrong("pull=TIME or error=WORD".to_owned())),
            }
        }
        Ok((image.to_owned(), script))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

fn end(text: &str) -> Result<End, String> {
    if text == "oom" {
        return Ok(End::OutOfMemory);
    }
    let number = text.strip_prefix("sig").unwrap_or(text);
    let number = number.parse().map_err(|_| "a code, oom, or sig and a number".to_owned())?;
    Ok(if text.starts_with("sig") { End::Signal(number) } else { End::Code(number) })
}

fn code_at(text: &str) -> Result<(i32, Duration), String> {
    let (code, after) = text.split_once('@').unwrap_or((text, "0s"));
    Ok((code.parse().map_err(|_| "not an exit code".to_owned())?, duration(after)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_what_happens() {
        let second = Duration::from_secs(1);
        let plain = ContainerScript::default;
        for (text, want) in [
            ("", plain()),
            ("start=1s", ContainerScript { start: second, ..plain() }),
            ("start=fail@1s", ContainerScript { start: second, start_fails: true, ..plain() }),
            ("exit=3@1s", ContainerScript { end: Some((End::Code(3), second)), ..plain() }),
            ("exit=oom@1s", ContainerScript { end: Some((End::OutOfMemory, second)), ..plain() }),
            (
                "exit=sig11 times=2",
                ContainerScript {
                    end: Some((End::Signal(11), Duration::ZERO)),
                    times: Some(2),
                    ..plain()
                },
            ),
            ("term=ignore", ContainerScript { term: OnTerm::Ignore, ..plain() }),
            (
                "term=7@1s",
                ContainerScript { term: OnTerm::Exit { code: 7, after: second }, ..plain() },
            ),
        ] {
            assert_eq!(ContainerScript::parse(text), Ok(want), "{text}");
        }
        let script = ContainerScript::parse("exec=1 exec:check=7@1s").unwrap();
        assert_eq!(script.exec("check"), ExecScript { code: 7, after: second });
        assert_eq!(script.exec("other"), ExecScript { code: 1, after: Duration::ZERO });
        let image = ImageScript { pull: second, error: Some("unauthorized".to_owned()) };
        let read = ImageScript::parse("a/b:1 pull=1s error=unauthorized");
        assert_eq!(read, Ok(("a/b:1".to_owned(), image)));
    }

    #[test]
    fn a_word_that_means_nothing_is_named() {
        for text in
            ["exit", "exit=x@1s", "exit=1@soon", "times=-1", "term=x", "executor=1", "start=9x"]
        {
            let error = ContainerScript::parse(&format!("exec=0 {text}")).unwrap_err();
            assert_eq!(error.word, text);
        }
        assert_eq!(ImageScript::parse("a push=1s").unwrap_err().word, "push=1s");
    }
}
